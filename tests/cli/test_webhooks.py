"""`switchboard webhooks`: what an operator sees and does, plain and with --json."""

from __future__ import annotations

from pathlib import Path

from tests.api.kit import CONFIG, make_token
from tests.api.test_webhooks import once
from tests.appliance import laid_over, running
from tests.cli.kit import switchboard
from tests.receiver import Answer, receiver, webhook


async def test_dead_letters_are_listed_and_sent_again(tmp_path: Path) -> None:
    async with receiver() as it:
        it.answer = lambda _got: Answer(500)
        config = laid_over(CONFIG, {"webhooks": {"hook": webhook(it, "token", attempts=1)}})
        async with running(tmp_path, config) as appliance, appliance.client() as client:
            file = appliance.config_file
            for named in ("one", "two", "three"):
                await make_token(client, "events:ro", named=named)
            await once(client, lambda h: h["dead"] == 3)
            done = await switchboard("webhooks", config=file)
            assert done.status == 0
            for part in ("hook", "active", "3", "answered 500", it.url):
                assert part in done.out
            done = await switchboard("webhooks", "--json", config=file)
            assert [h["name"] for h in done.json] == ["hook"]
            done = await switchboard("webhooks", "dead", "hook", config=file)
            for part in ("token.created", "token/two", "answered 500"):
                assert part in done.out
            dead = (await switchboard("webhooks", "dead", "hook", "--json", config=file)).json
            assert [d["subject"] for d in dead] == ["token/three", "token/two", "token/one"]

            it.answer = lambda _got: Answer()
            done = await switchboard("webhooks", "redrive", "hook", dead[1]["id"], config=file)
            assert (done.status, done.out) == (0, "1 are sent again, 2 are dead still\n")
            await it.took(1)
            # It is no dead letter any more.
            done = await switchboard("webhooks", "redrive", "hook", dead[1]["id"], config=file)
            assert done.status == 1
            done = await switchboard("webhooks", "redrive", "hook", "--json", config=file)
            assert done.json == {"redriven": 2, "left": 0}
            await it.took(3)
            assert it.taken[0].subject == "token/two"


async def test_one_that_was_disabled_is_tested_and_enabled(tmp_path: Path) -> None:
    async with receiver() as it:
        it.answer = lambda _got: Answer(410)
        config = laid_over(CONFIG, {"webhooks": {"hook": webhook(it, "token")}})
        async with running(tmp_path, config) as appliance, appliance.client() as client:
            file = appliance.config_file
            await make_token(client, "events:ro")
            await once(client, lambda h: h["state"] == "disabled")
            done = await switchboard("webhooks", config=file)
            assert "disabled: answered 410" in done.out
            done = await switchboard("webhooks", "test", "hook", config=file)
            assert done.status == 1
            assert done.out.startswith("answered 410 in ")
            it.answer = lambda _got: Answer()
            done = await switchboard("webhooks", "test", "hook", "--json", config=file)
            assert (done.status, done.json["ok"]) == (0, True)
            done = await switchboard("webhooks", "enable", "hook", config=file)
            assert done.out == "hook goes on\n"
            done = await switchboard("webhooks", "enable", "hook", config=file)
            assert done.out == "hook was not disabled\n"
            it.stop()
            done = await switchboard("webhooks", "test", "hook", config=file)
            assert done.status == 1
            assert done.out.startswith("no answer: no connection")


async def test_a_webhook_that_there_is_not(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance:
        file = appliance.config_file
        assert (await switchboard("webhooks", "--json", config=file)).json == []
        for what in ("dead", "redrive", "enable", "test"):
            done = await switchboard("webhooks", what, "nobody", config=file)
            assert done.status == 5
            assert "there is no webhook 'nobody'" in done.err
