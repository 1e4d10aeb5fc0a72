"""HTTP requests and responses, bounded in time and memory; the clients of Apple and AWS are built on it.

``messages``  requests, responses and failures
``curl``      any number of requests at once on libcurl's multi interface, and no thread that waits (Linux, pycurl)
``blocking``  one request on the calling thread, by requests and urllib3: through proxies, and where there is no pycurl
``loop``      where ``curl`` runs: on the scheduler of an actor system, or on a thread of its own

Both transports keep the same promises. A request ends within its time-outs, however slowly the server sends. Redirects
are not followed. TLS is 1.2 or newer, and always verified. No response is read beyond its server's limit, and the large
responses of a process share ``messages.MAX_SHARED_BYTES``.
"""
