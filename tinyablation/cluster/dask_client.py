"""Jobs of a dask.distributed scheduler, of which this process takes plain text and nothing else.

dask sends pickles: of results, of exceptions, of types, and of whatever a message holds that its
own format does not. Loading one runs what its sender wants. So results are asked for in
MessagePack, what comes pickled is dropped unread, and while a client is connected nothing that a
pickle names is looked up in this process, by whichever of dask's ways it came.
"""

import contextlib
import ipaddress
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from typing import Any

from distributed import Client, Security

from tinyablation.characters import printable
from tinyablation.cluster.executors import Lost, Unreachable, Unsafe

# Within which a scheduler on the local network answers.
CONNECT_SECONDS = 10
# What an honest worker has no cause for: its jobs answer with receipts, also for their errors.
ERRED = (
    "it ended without a receipt: its workers died, one after another, or could not run it; their "
    "logs and the scheduler's say why"
)


class PickleRefused(TypeError):
    """A pickle was about to be loaded while a scheduler could have sent it.

    A TypeError, which dask takes for a traceback that cannot be read.
    """


class Refusal:
    """Refuses every name that a pickle asks for while it is needed; without one, a pickle is data.

    An audit hook cannot be removed, so there is one, which does nothing while nobody needs it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hooked = False
        self._needed = 0

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "pickle.find_class" and self._needed:
            raise PickleRefused(
                f"a pickle that names {'.'.join(map(str, arguments))} was not loaded: a session "
                "takes plain text from a dask scheduler"
            )

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._hooked:
                sys.addaudithook(self._hear)
                self._hooked = True
            self._needed += 1
        try:
            yield
        finally:
            with self._lock:
                self._needed -= 1


refusing_pickles = Refusal()


class TextClient(Client):
    """A client that leaves unread what an honest scheduler sends in pickles.

    given_up: whether the scheduler sent what is refused, after which nothing more is read from it.
    """

    given_up = False

    async def _ensure_connected(self, timeout: Any = None) -> None:
        await super()._ensure_connected(timeout=timeout)
        # What is marked as serialised stays so: exceptions are, and not one of them is looked at.
        if self.scheduler_comm is not None:
            self.scheduler_comm.comm.deserialize = False

    async def _handle_report(self) -> None:
        try:
            await super()._handle_report()
        except Exception as error:  # dask would leave all who wait waiting
            self.given_up = True
            for state in list(self.futures.values()):
                state.set_error(f"what the scheduler sent was refused: {error}", None)

    async def _handle_event(self, topic: Any, event: Any) -> None:
        """What workers would print here, or warn of, in pickles: it is for their logs."""

    def _handle_key_in_memory(self, key: Any = None, type: Any = None, workers: Any = None) -> None:
        super()._handle_key_in_memory(key=key, workers=workers)

    def _handle_task_erred(
        self, key: Any = None, exception: Any = None, traceback: Any = None
    ) -> None:
        super()._handle_task_erred(key=key, exception=ERRED)


@contextlib.contextmanager
def connected(place: str) -> Iterator[Executor]:
    """The jobs of the scheduler at host:port, until the block ends.

    Over TLS with the certificates of dask's configuration; without them only on loopback: else
    Unsafe is raised. Raises Unreachable if no scheduler answers.
    """
    try:
        security = Security()
        encrypted = security.get_connection_args("client")["ssl_context"] is not None
    except OSError as error:
        raise Unsafe(
            f"dask's certificates cannot be used ({error}): look at distributed.comm.tls in its "
            "configuration, ~/.config/dask/, and at docs/cluster.md"
        ) from error
    if not encrypted and not _on_loopback(place):
        raise Unsafe(
            f"dask://{place}: without TLS anybody on the network could run code as you; give dask "
            "the certificates (distributed.comm.tls in ~/.config/dask/, as in docs/cluster.md)"
        )
    url = f"{'tls' if encrypted else 'tcp'}://{place}"
    with refusing_pickles():
        try:
            client = TextClient(
                url,
                timeout=CONNECT_SECONDS,
                set_as_default=False,
                security=security,
                deserializers=["msgpack"],
                direct_to_workers=False,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise Unreachable(
                f"no dask scheduler answers at {url} ({error}): start one, and workers, as in "
                "docs/cluster.md, and give its address"
            ) from error
        try:
            yield DaskJobs(client, url)
        finally:
            client.close()


def _on_loopback(place: str) -> bool:
    host = place.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DaskJobs(Executor):
    """Jobs of a dask scheduler, which itself reruns a job whose worker died.

    It gives up after `distributed.scheduler.allowed-failures` (default 3) more workers died.
    """

    def __init__(self, client: TextClient, url: str) -> None:
        self._client = client
        self._url = url

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        if self._client.given_up:
            raise Unsafe(
                f"what the dask scheduler at {self._url} sent was refused, as it could have run "
                "code here: find out who changed it, or one of its workers"
            )
        if self._client.status != "running":
            raise Unreachable(
                f"the dask scheduler at {self._url} is gone; start it again, "
                "and run this again: what was measured is kept"
            )
        outer: Future[Any] = Future()
        inner = self._client.submit(fn, *args, **kwargs, pure=False)

        def hand_on(done: Any) -> None:
            if not outer.set_running_or_notify_cancel():
                return
            try:
                outer.set_result(_text(done))
            except CancelledError:
                outer.set_exception(Lost("", "the scheduler dropped the job"))
            except Lost as lost:
                outer.set_exception(lost)
            except Exception as error:
                outer.set_exception(Lost("", f"{type(error).__name__}: {printable(str(error))}"))

        inner.add_done_callback(hand_on)
        outer.add_done_callback(lambda mine: inner.cancel() if mine.cancelled() else None)
        return outer


def _text(done: Any) -> str:
    """The text that a finished job returned; Lost if it erred, or returned anything else."""
    if done.status == "error":
        raise Lost("", printable(str(done.exception())), final=True)
    result = done.result()
    if not isinstance(result, str):
        raise Lost("", f"it returned a {type(result).__name__} and no receipt", final=True)
    return result
