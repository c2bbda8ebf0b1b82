"""The page in a real browser: what it shows, what it does, and that it asks for nothing."""

from collections import defaultdict
from statistics import fmean

import pyarrow as pa
import pytest
from support.chromium import Watched, chromium
from support.report_rows import EDITORS, HOSTILE, answers, cost_rows, hostile, rows

from evaluators.report.compare import compare
from evaluators.report.page.about import About, Progress, Trouble
from evaluators.report.page.page import write_page

NAMES = {**EDITORS, HOSTILE["editor"]: 0.5}
ABOUT = About(store="results/x", campaign="a campaign", read_at="2030-01-01 10:00 UTC", papers={"gpt-j": "gpt-j"},
              command="editfleet run c --out results/x", progress=[Progress("score", 50, 48, 1)],
              failures=[Trouble(HOSTILE["subject"], HOSTILE["long"], "a\nb")],
              tags={HOSTILE["dataset"]: HOSTILE["long"]})
CASES = 40


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def table():
    return rows(CASES, editors=NAMES, model="gpt-j", dataset="zsre", names=hostile, protocols=(
        ("single", 1), ("batch", 4), ("batch", 8), ("sequential", 4), ("sequential", 8)))


@pytest.fixture(scope="module")
def path(tmp_path_factory, table):
    whole = pa.concat_tables([table, rows(3, dataset=HOSTILE["dataset"], model=HOSTILE["long"]),
                              cost_rows(model="gpt-j", dataset="zsre")])
    asked = answers(CASES, editors=NAMES, model="gpt-j", dataset="zsre", names=hostile)
    return write_page(tmp_path_factory.mktemp("page"), ABOUT, whole, (), asked)


@pytest.fixture(scope="module")
def watched(browser):
    """One page for all tests that only look: each opens the file anew."""
    return Watched(browser, viewport={"width": 1200, "height": 900})


@pytest.fixture(autouse=True)
def quiet(watched):
    """Nothing complains, nothing else is loaded, and no name is run as a program."""
    yield
    assert watched.complaints == [] and len(set(watched.files)) <= 1
    assert watched.page.evaluate("typeof hacked") == "undefined"


def values_of(table, **where):
    """The rows' values by case, of the one metric and editor asked for."""
    return {row["case_id"]: row["value"] for row in table.to_pylist()
            if all(row[key] == value for key, value in where.items())}


@pytest.mark.parametrize("way", ["token", "exact", "generation"])
def test_numbers_are_those_of_a_query(watched, path, table, way):
    page = watched.open(path, f"#results?way={way}")
    means = defaultdict(list)
    for row in table.to_pylist():
        if row["protocol"] == "single":
            means[row["editor"], row["metric"]].append(row["value"])
    cells = page.eval_on_selector_all("#results td[data-metric]", """all => all.filter(each => each.checkVisibility())
        .map(each => [each.closest("table").caption.textContent,
                      each.closest("tr").querySelector("th bdi").textContent, each.dataset.metric, each.dataset.mean,
                      each.dataset.n, each.querySelector("bdi").textContent])""")
    seen = [cell[1:] for cell in cells if "zsre on gpt-j" in cell[0]]
    assert len(seen) == len(NAMES) * 4
    for editor, metric, mean, n, text in seen:
        values = means[editor, metric]
        assert metric.endswith(f".{way}") and float(mean) == pytest.approx(fmean(values)) and int(n) == len(values)
        assert text.startswith(f"{100 * fmean(values):.1f} ±")


def test_how_answers_count_is_chosen_with_keys_and_kept_in_the_address(watched, path):
    page = watched.open(path)
    assert page.evaluate("document.documentElement.dataset.way") == "token"
    page.focus("input[name=way][value=token]")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.documentElement.dataset.way") == "exact" and "way=exact" in page.url
    assert page.is_visible("text=Tables 2 and 3: zsre on gpt-j, one edit at a time, whole answers")
    page.click("nav a[href='#cases']")
    assert page.url.endswith("#cases?way=exact")
    assert page.evaluate("document.activeElement.id") == "cases-title"


def test_filters_leave_what_a_query_leaves(watched, path, table):
    page = watched.open(path, "#cases")
    page.select_option("#cases select[name=editor]", "mend")
    page.select_option("#cases select[name=metric]", "generality.exact")
    page.select_option("#cases select[name=show]", "failures")
    values = values_of(table, editor="mend", metric="generality.exact", protocol="single")
    failures = [case for case, value in values.items() if value < 1]
    assert page.inner_text("#cases [role=status]") == f"{len(failures)} cases" and 1 < len(failures) < CASES
    page.fill("#cases input[name=find]", "SUBJECT 7")
    found = page.locator("#cases-room tbody th").all_inner_texts()
    assert found == [case for case in failures if case in ("case-014", "case-015")]
    url = page.url
    watched.open(path, "#" + url.partition("#")[2])  # the link, sent to somebody else
    assert page.locator("#cases-room tbody th").all_inner_texts() == found
    page.fill("#cases input[name=find]", "")
    page.select_option("#cases select[name=relation]", "plays")
    numbers = [int(case[-3:]) for case in page.locator("#cases-room tbody th").all_inner_texts() if case[-1].isdigit()]
    assert numbers and all(number % 3 == 1 for number in numbers)


def test_a_case_is_opened_and_closed_with_keys(watched, path, table):
    page = watched.open(path, "#cases?editor=rome&find=case-005")
    page.focus("#cases-room tbody a")
    page.keyboard.press("Enter")
    page.wait_for_selector("#cases article")
    assert page.evaluate("document.activeElement.textContent") == "case-005: subject 2"
    told = page.inner_text("#cases article")
    for part in ("edited by rome", "relation works for", "patch norm 2.5", "unedited model", "subject 2 is",
                 "<i>and more</i>"):
        assert part in told
    score = values_of(table, editor="rome", metric="locality.token", protocol="single")["case-005"]
    line = page.locator("#cases article tr", has_text="locality.token").locator("td").all_inner_texts()
    assert float(line[sorted(NAMES, key=lambda name: (name != "identity", name)).index("rome")]) == 100 * score
    page.focus("#cases article button")
    page.keyboard.press("Enter")
    assert page.locator("#cases article").count() == 0 and "case=" not in page.url
    page.go_back()
    page.wait_for_selector("#cases article")


def test_hostile_texts_are_shown_as_what_they_are(watched, path):
    page = watched.open(path, "#cases?editor=rome")
    assert page.locator("img").count() == 0
    page.locator("#cases-room tbody a").nth(0).click()
    title = page.inner_text("#cases article h3")
    assert title.startswith(HOSTILE["case"]) and "\\u202eevil" in title and "\\x1b[31m" in title
    assert HOSTILE["editor"] in page.inner_text("#results table")


def test_editors_are_compared_as_the_command_does(watched, path, table):
    page = watched.open(path, "#pairs?aspect=Generality&way=exact")
    page.wait_for_selector("text=generality.exact: the row")
    head = page.locator("#pairs-room thead th").all_inner_texts()
    row = page.locator("#pairs-room tbody tr").nth(head.index("rome") - 1)
    assert row.locator("th").inner_text() == "rome"
    cell = row.locator("td").nth(head.index("ft") - 1).inner_text()
    [expected] = [each for each in compare(table, "ft").comparisons if each.editor == "rome" and
                  (each.protocol, each.metric) == ("single", "generality.exact")]
    assert cell.replace("\u2212", "-").startswith(f"{100 * expected.difference:+.1f} ±".replace("+0.0", "0.0"))
    assert f"n {expected.n}" in cell


def test_both_themes(browser, watched, path):
    found = {}
    for scheme in ("light", "dark"):
        watched.page.emulate_media(color_scheme=scheme)
        page = watched.open(path)
        found[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert found == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}
    for theme in ("light", "dark"):
        page.focus("#theme")
        page.keyboard.press("Enter")
        assert page.inner_text("#theme") == f"Theme: {theme}"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == found[theme]
    page.click("#theme")
    watched.page.emulate_media(color_scheme="light")


def test_nothing_is_wider_than_a_phone(watched, path):
    watched.page.set_viewport_size({"width": 400, "height": 800})
    for fragment in ("", "#results?way=generation", "#cases?editor=rome", "#pairs"):
        page = watched.open(path, fragment)
        if "cases" in fragment:
            page.locator("#cases-room tbody a").nth(1).click()
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, fragment
    watched.page.set_viewport_size({"width": 1200, "height": 900})


def test_axe_finds_nothing_serious(browser, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    editors = {"identity": 0.1, "rome": 0.8}  # axe takes long on large pages
    small = pa.concat_tables([rows(2, editors=editors, protocols=(("single", 1), ("sequential", 2))), cost_rows()])
    path = write_page(tmp_path, ABOUT, small, (), answers(2, editors=editors))
    seen = Watched(browser, bypass_csp=True)  # the page's own policy keeps axe out as well
    for scheme in ("light", "dark"):
        seen.page.emulate_media(color_scheme=scheme)
        page = seen.open(path, "#cases?editor=rome&case=case-001&of=rome")
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        found = [(each["id"], each["impact"], [node["html"] for node in each["nodes"]][:3])
                 for each in axe.run(page).response["violations"]]
        assert [each for each in found if each[1] in ("serious", "critical")] == [], (scheme, found)
