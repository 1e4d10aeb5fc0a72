// Numbers and times as people read them. What is not known is a dash.

const DASH = "–";
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const ONE_DIGIT = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const MINUTE = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

const isKnown = (value) => value !== null && value !== undefined && !Number.isNaN(value);

/** 1,234; from a hundred thousand on 123 k and 1.2 M. */
export function count(value) {
  if (!isKnown(value)) return DASH;
  if (value >= 10_000_000) return `${WHOLE.format(value / 1e6)} M`;
  if (value >= 1_000_000) return `${ONE_DIGIT.format(value / 1e6)} M`;
  if (value >= 100_000) return `${WHOLE.format(value / 1e3)} k`;
  return WHOLE.format(value);
}

/** A count that needs no abbreviation. */
export const exact = (value) => (isKnown(value) ? WHOLE.format(value) : DASH);

/** How many a second, or how full a batch is: one digit where it tells something. */
export function decimal(value) {
  if (!isKnown(value)) return DASH;
  return value > 0 && value < 10 ? ONE_DIGIT.format(value) : count(value);
}

/** A latency: 0.42 ms, 12 ms, 1.2 s. */
export function latency(seconds) {
  if (!isKnown(seconds)) return DASH;
  if (seconds === 0) return "0";
  if (seconds < 0.001) return `${(seconds * 1000).toFixed(2)} ms`;
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  return duration(seconds);
}

/** 12 s, 3 min 5 s, 2 h 10 min, 4 d 3 h. */
export function duration(seconds) {
  if (!isKnown(seconds)) return DASH;
  const whole = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return `${minutes} min ${whole % 60} s`;
  return `${whole} s`;
}

export function percent(share) {
  return isKnown(share) ? `${share > 0 && share < 0.1 ? ONE_DIGIT.format(share * 100) : WHOLE.format(share * 100)} %` : DASH;
}

export function bytes(value) {
  if (!isKnown(value)) return DASH;
  if (value >= 1024 ** 3) return `${ONE_DIGIT.format(value / 1024 ** 3)} GiB`;
  return `${WHOLE.format(value / 1024 ** 2)} MiB`;
}

const date = (seconds) => new Date(seconds * 1000);

export const clock = (seconds) => CLOCK.format(date(seconds));
export const minute = (seconds) => MINUTE.format(date(seconds));

/** A time of today, or with its day. */
export function moment(seconds, now) {
  const sameDay = date(seconds).toDateString() === date(now).toDateString();
  return sameDay ? clock(seconds) : `${DAY.format(date(seconds))}, ${clock(seconds)}`;
}

export const plural = (number, one, many = `${one}s`) => `${exact(number)} ${number === 1 ? one : many}`;

/** claimed_by_another_user: claimed by another user. */
export const words = (name) => String(name).replaceAll("_", " ");
