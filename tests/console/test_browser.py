"""The console in a real browser, before the real product: the way from a server to an audited call, a key that appears once,
no sideways scrolling on a telephone, and no error on the browser's console. Skips without Chromium, fails in CI without it."""

import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.product import Product
from tests.support import eventually

pytestmark = [pytest.mark.browser, pytest.mark.once, pytest.mark.slow]  # the pages' own tests know the database
PROGRAM = Path(__file__).parent / "programs" / "desk.py"
ARGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
LISTS = (
    "", "servers/server/", "servers/server/add/", "servers/upstreamprocess/", "servers/oauthconnection/", "tools/tool/", "tools/resource/", "tools/resourcetemplate/",
    "tools/prompt/", "tools/instructions/", "tools/toolset/", "tools/toolset/add/", "tools/grant/", "tools/grant/add/",
    "accounts/apikey/", "accounts/apikey/add/", "accounts/role/", "accounts/role/add/", "accounts/membership/",
    "accounts/membership/add/", "accounts/user/", "accounts/user/add/", "accounts/tenant/", "accounts/tenant/add/",
    "audit/auditevent/", "audit/auditevent/?view=rows", "django_celery_beat/periodictask/", "import-servers/",
    "compatibility/", "compatibility/now/", "gateway/recording/",
)  # fmt: skip
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  const within = (element) => { for (let up = element.parentElement; up; up = up.parentElement) { const way = getComputedStyle(up).overflowX; if (way === "auto" || way === "scroll" || way === "hidden" || getComputedStyle(up).position === "fixed") return true; } return false; };
  const wide = [...document.querySelectorAll("body *")].filter((element) => { const box = element.getBoundingClientRect(); return box.width > 0 && box.right > width + 1 && getComputedStyle(element).position !== "fixed" && !within(element); });
  return { scrolls: document.documentElement.scrollWidth > width, wide: wide.slice(0, 5).map((element) => element.outerHTML.slice(0, 120)) };
}"""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A Chromium of this module's own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, own_product: Product) -> Iterator[Any]:
    """A signed-in page; at the end it must have seen no error."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=own_product.base_url)
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    errors: list[str] = []
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    sign_in(opened, own_product)
    yield opened
    context.close()
    assert not errors, errors


def sign_in(page: Any, product: Product) -> None:
    """Sign in as the operator."""
    page.goto("/admin/login/")
    page.fill("#id_username", product.username)
    page.fill("#id_password", product.password)
    page.click("button[type=submit]")
    page.wait_for_url("**/admin/")


def register(page: Any, slug: str) -> None:
    """Register the program of these tests as a stdio server, everything it offers held."""
    page.goto("/admin/servers/server/add/")
    page.fill("#id_slug", slug)
    page.wait_for_selector("#id_command", state="hidden")
    assert page.is_visible("#id_url")
    page.select_option("#id_transport", "stdio")
    page.wait_for_selector("#id_url", state="hidden")
    page.fill("#id_command", sys.executable)
    page.fill("#id_args", str(PROGRAM))
    page.select_option("#id_review", "hold-all")
    page.get_by_role("button", name="Test connection").click()
    page.wait_for_selector("#dialog >> text=It answers", timeout=60_000)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url(re.compile(r"/admin/servers/server/[0-9a-f-]{36}/change/$"))


def open_row(page: Any, address: str, text: str) -> None:
    """Open the page of the row with this text."""
    page.goto(address)
    page.locator("#result_list tbody th a", has_text=text).first.click()
    page.wait_for_load_state()


def test_from_a_server_to_an_audited_call(page: Any, own_product: Product) -> None:
    register(page, "front-desk")
    open_row(page, "/admin/servers/server/?q=front-desk", "front-desk")
    address = page.url

    def discovered() -> bool:
        page.goto(address)
        page.get_by_role("link", name="Discover", exact=True).first.click()
        page.wait_for_selector("#dialog button[type=submit]")
        page.click("#dialog button[type=submit]")
        page.wait_for_selector("#dialog >> text=/It answered|It could not|runs already|alert/", timeout=60_000)
        return page.locator("#dialog >> text=It answered").count() > 0

    eventually(discovered, within=40, every=0.5)
    page.goto(address)
    assert page.locator("#tools >> text=Held for review").count() >= 2
    page.locator("#tools a", has_text="look_up").click()
    page.wait_for_load_state()
    assert page.locator("form[data-playground]").count() == 0
    assert page.is_visible("text=Offered for the first time")
    page.get_by_role("link", name="Approve").first.click()
    page.wait_for_selector("#dialog button[type=submit]")
    page.click("#dialog button[type=submit]")
    page.wait_for_selector("text=look_up is approved")

    form = page.locator("form[data-playground]")
    labels = form.locator("[data-play-form] > div > .sy-field > label").all_text_contents()
    assert labels[0] == "name (required)"
    form.get_by_role("button", name="Call look_up").click()
    name = form.get_by_label("name (required)")
    assert "Fill this in" in name.locator("xpath=..").inner_text()
    assert name.evaluate("input => input === document.activeElement")
    assert page.locator("#played [data-outcome]").count() == 0
    form.get_by_label("Send it as empty text").check()
    form.get_by_role("tab", name="JSON").click()
    assert '"name": ""' in form.locator("[data-play-raw]").input_value()
    form.get_by_role("tab", name="Form").click()
    form.get_by_label("Send it as empty text").uncheck()
    name.fill("Ada")
    form.get_by_label("plan (optional)").select_option(label="paid")
    form.get_by_label("limit (optional)").fill("three")
    form.get_by_role("button", name="Call look_up").click()
    assert "whole number" in form.locator("[data-play-error]").text_content()
    form.get_by_label("limit (optional)").fill("3")
    form.get_by_label("city (optional)").fill("Bern")
    form.get_by_role("tab", name="JSON").click()
    assert '"city": "Bern"' in form.locator("[data-play-raw]").input_value()
    form.get_by_role("tab", name="Form").click()
    eventually(lambda: _called(page, form), within=30, every=0.5)
    result = page.locator("#played-result")
    assert "<b>Found</b> Ada <script>" in result.inner_text()
    assert result.locator("script, b").count() == 0
    assert result.locator("img").evaluate("image => image.naturalWidth") == 1
    page.locator("#played").get_by_role("tab", name="Structured").click()
    assert '"plan": "paid"' in page.locator("#played-structured").inner_text()
    page.locator("#played").get_by_role("tab", name="As code").click()
    assert "/mcp/front-desk" in page.locator("#played-code").inner_text()
    assert page.locator("#played >> text=upstream").count() > 0
    events = page.locator("#played a", has_text=re.compile(r"^\d+-\d+$"))
    assert events.count() >= 2
    events.last.click()
    page.wait_for_load_state()
    text = page.locator("#content").inner_text()
    assert "look_up" in text
    assert "Succeeded" in text
    assert "step by step" in text
    assert re.search(r"digest\s+[0-9a-f]{64}", text)

    page.go_back()
    page.wait_for_load_state()
    assert page.locator("form[data-playground]").get_by_label("name (required)").input_value() == "Ada"
    page.goto("/admin/audit/auditevent/?view=calls")
    assert page.locator(".sy-event", has_text="front-desk · look_up").count() >= 1


def _called(page: Any, form: Any) -> bool:
    """Call; a tool that was approved a moment ago is in force within a second."""
    form.get_by_role("button", name="Call look_up").click()
    page.wait_for_selector("#played [data-outcome], #played [role=alert]", timeout=60_000)
    return page.locator('#played [data-outcome="ok"]').count() == 1


def test_a_key_appears_once_and_works(page: Any, own_product: Product) -> None:
    page.goto("/admin/accounts/apikey/")
    page.get_by_role("link", name="Make key").first.click()
    page.fill("#id_name", "browser key")
    assert not page.is_visible("#id_wide")
    page.get_by_label("Everything its owner may use").check()
    page.get_by_role("button", name="Make key").click()
    page.get_by_label("Make it all the same").check()
    page.get_by_role("button", name="Make key").click()
    key = page.locator("[data-testid=new-key]").inner_text()
    assert re.fullmatch(r"sy_[a-z0-9]{8}_[\w-]{43}", key)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy key").click()
    assert page.evaluate("navigator.clipboard.readText()") == key
    for client in ("Claude Code", "Claude Desktop", "Cursor", "VS Code", "curl", "Python"):
        page.get_by_role("tab", name=client, exact=True).click()
        assert key in page.locator("[role=tabpanel]:visible").inner_text()
    page.get_by_role("link", name="I have copied it").click()
    page.wait_for_load_state()
    assert key[12:] not in page.content()
    page.goto("/admin/accounts/apikey/")
    assert key[12:] not in page.content()
    body = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}'
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    with urllib.request.urlopen(urllib.request.Request(f"{own_product.base_url}/mcp", body, headers), timeout=10) as answer:
        assert answer.status == 200


def test_a_dialog_closes_and_the_palette_opens(page: Any) -> None:
    page.goto("/admin/servers/server/")
    page.locator("#result_list tbody th a", has_text="system").first.click()
    page.wait_for_load_state()
    page.get_by_role("link", name="Pause", exact=True).click()
    page.wait_for_selector("#dialog")
    assert re.search(r"stops \d+ tools? for \d+ keys?", page.locator("#dialog").inner_text())
    page.locator("#dialog").get_by_text("Cancel").click()
    page.wait_for_selector("#dialog", state="hidden")
    page.keyboard.press("Control+k")
    page.wait_for_selector("#search-input-command:focus")
    page.keyboard.type("calculate")
    page.wait_for_selector("#command-results >> text=calculate")


def test_composing_a_toolset(page: Any) -> None:
    page.goto("/admin/tools/toolset/add/")
    page.fill("#id_slug", "sums")
    page.fill("#entries-search", "calculate")
    page.locator("#entries-found [data-offered]", has_text="calculate").get_by_role(
        "button", name=re.compile("^Add calculate of system$")
    ).click()
    entry = page.locator("[data-entries-list] [data-entry]")
    assert entry.count() == 1
    entry.locator("summary").click()
    entry.get_by_label(re.compile("Name that callers see")).fill("sum_up")
    page.get_by_role("button", name="Preview what a client would get").click()
    page.wait_for_selector("#entries-preview >> text=sum_up")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url(re.compile(r"/admin/tools/toolset/[0-9a-f-]{36}/change/$"))
    open_row(page, "/admin/tools/toolset/?q=sums", "sums")
    assert page.locator("#list >> text=sum_up").count() > 0
    assert "/mcp/sums" in page.locator("#connect").inner_text()


def test_messages_appear_while_one_watches_and_stay_as_one_opened_them(page: Any, own_product: Product) -> None:
    page.goto("/admin/gateway/recording/")
    page.get_by_role("link", name="Record messages").first.click()
    page.wait_for_selector("#dialog button[type=submit]")
    page.select_option("#dialog select[name=kind]", "toolset")
    assert page.is_visible("#dialog select[name=toolset]")
    assert not page.is_visible("#dialog select[name=server]")
    page.select_option("#dialog select[name=toolset]", label="/mcp/system")
    page.click("#dialog button[type=submit]")
    page.wait_for_url(re.compile(r"/admin/gateway/recording/[0-9a-f-]{36}/change/$"))
    page.wait_for_selector("#recorded >> text=Nothing has passed yet")

    def calculate(expression: str) -> None:
        call = {"name": "calculate", "arguments": {"expression": expression}}
        body = json.dumps({"jsonrpc": "2.0", "id": expression, "method": "tools/call", "params": call}).encode()
        headers = {**own_product.headers, "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{own_product.base_url}/mcp/system", body, headers), timeout=10
        ) as answer:
            assert answer.status == 200

    def shown() -> int:
        calculate("6 * 7")
        return page.locator("#recorded .sy-exchange").count()

    eventually(shown, within=30, every=1.0)
    message = page.locator("#recorded details.sy-message").first
    message.locator("summary").click()
    page.wait_for_selector("#recorded details.sy-message[open] pre >> text=6 * 7")
    known, seen = message.get_attribute("id"), page.locator("#recorded .sy-exchange").count()
    calculate("1 + 1")
    eventually(lambda: page.locator("#recorded .sy-exchange").count() > seen, within=20, every=0.2)
    assert page.locator(f"#{known}").evaluate("one => one.open")
    assert "6 * 7" in page.locator(f"#{known} pre").inner_text()
    assert page.evaluate("document.activeElement.closest('details') && document.activeElement.closest('details').id") == known
    page.get_by_role("link", name="Stop", exact=True).click()
    page.wait_for_selector("#dialog button[type=submit]")
    page.click("#dialog button[type=submit]")
    page.wait_for_selector("text=is recorded no more")
    assert page.locator("#recorded[data-refresh]").count() == 0


def test_a_telephone_has_room_for_headers_and_filters(browser: Any, own_product: Product) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, base_url=own_product.base_url)
    page = context.new_page()
    sign_in(page, own_product)
    page.goto("/admin/servers/server/")
    boxes = page.locator("a.sy-button:visible, summary.sy-button:visible, h1").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(box => [box.top, box.left, box.right])"
    )
    assert all(top >= 0 and left >= 0 and right <= 390 for top, left, right in boxes), boxes
    title = page.locator("h1")
    assert title.inner_text().strip() == "Servers"
    assert title.evaluate("one => one.scrollWidth <= one.clientWidth + 1")
    assert page.get_by_role("link", name="Import").is_visible()
    assert page.get_by_role("link", name="Register server").is_visible()
    page.goto("/admin/audit/auditevent/")
    panel = page.locator("details.sy-fold")
    assert panel.bounding_box()["y"] < page.locator(".sy-timeline").bounding_box()["y"]
    assert not page.is_visible("#f-text")
    panel.locator("summary").click()
    assert page.is_visible("#f-text")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("/admin/audit/auditevent/")
    assert page.is_visible("#f-text")
    assert not panel.locator("summary").is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_scrolls_sideways_on_a_telephone(scheme: str, browser: Any, own_product: Product) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, base_url=own_product.base_url, color_scheme=scheme)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(f"{page.url}: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(f"{page.url}: {error}"))
    page.goto("/admin/login/")
    assert not page.evaluate(OVERFLOW)["scrolls"]
    sign_in(page, own_product)
    lists = [f"/admin/{name}" for name in LISTS]
    addresses, found = [*lists], {}
    for address in addresses:  # grows by the first row of each list
        answer = page.goto(address)
        assert answer.status == 200, address
        seen = page.evaluate(OVERFLOW)
        if seen["scrolls"] or seen["wide"]:
            found[address] = seen["wide"]
        if address in lists:
            rows = ".sy-event-side a" if address == "/admin/audit/auditevent/" else "#result_list tbody th a"
            addresses += [page.locator(rows).first.get_attribute("href")] if page.locator(rows).count() else []
    assert any(address.startswith("/admin/audit/auditevent/") for address in set(addresses) - set(lists))
    context.close()
    assert not found
    assert not errors
