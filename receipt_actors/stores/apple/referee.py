"""Whether Apple's refusals can be believed. Pure.

Apple refuses forgeries all day. In an outage it may refuse everybody: it documents status 21002 as malformed *or* a
temporary problem of its own. A *control* tells the two apart: a receipt that Apple has vouched for before, asked about
again.

* A refusal stands once Apple vouches, after it, for another user's receipt, or for a control. If most of the last
  users were refused, it takes a control.
* If Apple refuses every control, that is an outage. What is held is asked again when it is over.
* If there is no control yet, the refusals of one or two users stand after a moment; those of more are held until Apple
  vouches for something.

So forgeries, however many, cannot cause an outage: Apple vouches for the controls meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Generic, TypeVar

MIN_USERS = 3  #: refusals of fewer users are no sign of an outage
RECENT_USERS = 20  #: of whom it is known how Apple answered them last
MAX_CONTROLS = 3  #: that are remembered, each of another user
CONTROL_RENEWAL_SECONDS = 60.0  #: after a receipt became a control, another one takes the place of the oldest

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Referee(Generic[C]):
    """What is known of Apple. Every event returns the next one. ``C`` is what can be asked again."""

    #: users, and what to ask about them; the next one to ask about comes first. A receipt must not get into a log.
    controls: tuple[tuple[Hashable, C], ...] = field(default=(), repr=False)
    recent: tuple[tuple[Hashable, bool], ...] = ()  #: the last users, and whether Apple refused them
    refused_users: int = 0  #: of those
    refused_controls: int = 0  #: how many of ``controls``, the first ones, Apple has refused since it vouched for one
    renewal_seconds: float = -inf  #: monotonic; from when on another user's receipt becomes a control
    is_out: bool = False  #: Apple refuses all controls

    def vouched(self, user: Hashable, question: C, now_seconds: float) -> Referee[C]:
        is_due = now_seconds >= self.renewal_seconds and not self.refused_controls
        if not (is_due or self.refused_users) and len(self.recent) == RECENT_USERS:
            return self  # as nearly always: all is well, and nothing changes
        return (self._renewed(user, question, now_seconds) if is_due else self)._answered(user, is_refused=False)

    def _renewed(self, user: Hashable, question: C, now_seconds: float) -> Referee[C]:
        others = [each for each in self.controls if each[0] != user]
        controls = (*others, (user, question))[-MAX_CONTROLS:]
        is_full = len(controls) == MAX_CONTROLS
        renewal_seconds = now_seconds + CONTROL_RENEWAL_SECONDS if is_full else -inf
        return replace(self, controls=controls, renewal_seconds=renewal_seconds)

    def refused(self, user: Hashable) -> Referee[C]:
        return self._answered(user, is_refused=True)

    def control_vouched(self) -> Referee[C]:
        """Note that Apple vouched for the next control again. Those that it refused before are no controls."""
        if not self.refused_controls:
            return self
        return replace(self, controls=self.controls[self.refused_controls :], refused_controls=0, renewal_seconds=-inf)

    def control_refused(self) -> Referee[C]:
        refused = self.refused_controls + 1
        if refused < len(self.controls):
            return replace(self, refused_controls=refused)
        return replace(self, refused_controls=0, is_out=bool(self.controls))

    def control_unanswered(self) -> Referee[C]:
        refused, others = self.controls[: self.refused_controls], self.controls[self.refused_controls :]
        return replace(self, controls=(*refused, *others[1:], *others[:1]))

    def interrupted(self) -> Referee[C]:
        """Note that an outage has begun, or is over: how Apple answered before says nothing any more."""
        return replace(self, recent=(), refused_users=0, refused_controls=0, is_out=False)

    @property
    def next_control(self) -> C | None:
        """What to ask Apple about again; None where Apple has vouched for nothing."""
        return self.controls[self.refused_controls][1] if self.controls else None

    @property
    def believes_without_control(self) -> bool:
        """Tell whether refusals stand without a control: there is none, and few users were refused."""
        return not self.controls and self.refused_users < MIN_USERS

    @property
    def is_contested(self) -> bool:
        """Tell whether most of the last users were refused: only a control can show that Apple works."""
        return self.refused_users >= MIN_USERS and 2 * self.refused_users > len(self.recent)

    def _answered(self, user: Hashable, *, is_refused: bool) -> Referee[C]:
        others = [each for each in self.recent if each[0] != user]
        recent = (*others[1 - RECENT_USERS :], (user, is_refused))
        return replace(self, recent=recent, refused_users=sum(was_refused for _, was_refused in recent))
