"""The thread of the data plane, when it ends: nobody waits for it."""

from __future__ import annotations

import asyncio
import os

import pytest

from proxywasm_host.serve.thread import Thread


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_cannot_run():
    """Its listening socket is none."""

    class File:
        def dup(self):
            return self

        def detach(self):
            return os.open(os.devnull, os.O_RDONLY)

    async def main():
        thread = Thread([File()], http=True)
        thread.start()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the thread of the data plane has ended"):
                await thread.ask(bool)
        await thread.close(60)
        await thread.end()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_thread_that_is_ended_while_it_is_asked():
    async def main():
        thread = Thread([], http=False)
        thread.start()
        assert await thread.ask(lambda: 7) == 7
        asked = [asyncio.ensure_future(thread.ask(bool)) for _ in range(3)]
        thread.native.end()
        thread._ending = True
        await thread._ended.wait()
        with pytest.raises(RuntimeError, match="has ended"):
            await thread.ask(bool)
        await thread.end()
        await asyncio.gather(*asked, return_exceptions=True)  # answered or cancelled

    asyncio.run(asyncio.wait_for(main(), 20))
