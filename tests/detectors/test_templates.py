"""Log lines get the stable id of their template; parameters do not make templates, statements do."""

import os
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.config import ConfigError, TemplateConfig
from detectors.masks import Masker
from detectors.templates import TemplateMiner

LINES = [
    "Accepted password for root from 10.0.0.1 port 22 ssh2",
    "Accepted password for alice from 10.0.0.2 port 2222 ssh2",
    "cache.go:65: miss for key 17",
    "cache.go:77: miss for key 17",
    "order 66 moved from NEW to PAID",
    "order 67 moved from PAID to SHIPPED",
    "order 68 moved from NEW to PAID",
    "ready",
]


def mine(lines, miner=None, service="shop"):
    miner = TemplateMiner() if miner is None else miner
    return miner.process([service] * len(lines), pl.Series(lines, dtype=pl.String)).tolist()


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("GET http://shop.example/cart?id=1 in 12.5 ms", "GET <*> in <*>"),
        ("from 10.0.0.7:443 and fe80:0:0:0:1:2:3:4", "from <*> and <*>"),
        ("id 7f9c24e8-3b2a-4f5e-8d1c-0a9b8c7d6e5f done", "id <*> done"),
        ("at 2024-05-01T12:00:07.123Z said", "at <*> said"),
        ("since Sat May 04 09:00:00 CST 2013 ok", "since <*> ok"),
        ("wrote /var/lib/jobs/7/out", "wrote <*>"),
        ("sent 4320 bytes (4.21 KB), took <1 sec", "sent <*>, took <*>"),
        ("user a.b@example.com", "user <*>"),
        ("flags 0x1F and deadbeef01", "flags <*> and <*>"),
        ("name=\"x y\" other='z'", "name=<*> other=<*>"),
        ("blk_-4711 and R02-M1", "blk_<*> and R<*>-M<*>"),
        ("ids [1, 2, 3] and [4]", "ids [<*>] and [<*>]"),
        ("org.apache.hadoop.fs.Path opened", "org.apache.hadoop.fs.Path opened"),
        ("ConfigServiceImpl#65 [query][size: 12]", "ConfigServiceImpl#65 [query][size: <*>]"),
        ("main.go:123 then app.py:7 gave 12", "main.go:123 then app.py:7 gave <*>"),
        ("zeit\uff1a42", "zeit\uff1a<*>"),  # a full-width colon
        (None, ""),
    ],
)
def test_parameters_are_masked_and_code_locations_stay(line, masked):
    plain = "nothing here"
    assert Masker()(pl.Series([plain, line, plain], dtype=pl.String)).to_list() == [plain, masked, plain]


def test_masks_of_the_configuration_come_first_and_bad_ones_are_refused():
    masker = Masker([r"tenant-[a-z]+"])
    assert masker(pl.Series(["tenant-blue has 3"])).to_list() == ["<*> has <*>"]
    with pytest.raises(ConfigError, match="extra_masks"):
        Masker([r"(?<=x)y"])


def test_lines_that_differ_in_parameters_share_a_template():
    a, b, *_ = mine(LINES)
    assert a == b


def test_the_line_of_code_that_spoke_tells_templates_apart():
    ids = mine(LINES)
    assert ids[2] != ids[3]


def test_names_of_states_tell_templates_apart():
    ids = mine(LINES)
    assert ids[4] != ids[5]
    assert ids[4] == ids[6]


def test_services_have_templates_of_their_own():
    assert mine(LINES, service="a") != mine(LINES, service="b")


def test_a_template_describes_itself_and_keeps_its_first_line():
    miner = TemplateMiner()
    ids = mine(LINES, miner)
    assert miner.describe(ids[0]) == "Accepted password for <*> from <*> port <*> ssh<*>"
    assert miner.example(ids[1]) == LINES[0]
    assert miner.describe(12345) == miner.example(12345) == ""


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=60), st.lists(st.integers(1, 59), max_size=5))
def test_ids_do_not_depend_on_batches(lines, cuts):
    edges = [0, *sorted({cut for cut in cuts if cut < len(lines)}), len(lines)]
    miner = TemplateMiner()
    parts = [i for a, b in pairwise(edges) for i in mine(lines[a:b], miner)]
    assert parts == mine(lines)


def test_ids_are_the_same_in_another_process_with_another_hash_seed():
    code = (
        "import polars as pl; from detectors.templates import TemplateMiner;"
        f"print(TemplateMiner().process(['shop'] * {len(LINES)}, pl.Series({LINES!r})).tolist())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == str(mine(LINES))


def test_a_restored_miner_goes_on_with_the_same_ids():
    miner = TemplateMiner()
    ids = mine(LINES, miner)
    twin = pickle.loads(pickle.dumps(miner))  # noqa: S301 - our own bytes
    assert mine(LINES, twin) == ids
    assert mine(["Accepted password for bob from 10.9.9.9 port 1 ssh2"], twin) == ids[:1]


def words(number):
    return " ".join("abcdefghij"[int(digit)] * 3 for digit in f"{number:06d}")


def test_templates_are_bounded_per_service_and_the_most_used_stay():
    miner = TemplateMiner(TemplateConfig(max_templates_per_service=50, similarity=1.0))
    (often,) = set(mine(["heartbeat ok"] * 100, miner))
    mine([words(i) for i in range(1000)], miner)
    assert len(miner) <= 50
    assert miner.counters["templates_dropped"] >= 950
    assert miner.describe(often) == "heartbeat ok"


def test_templates_are_bounded_in_all():
    miner = TemplateMiner(TemplateConfig(max_templates=100, similarity=1.0))
    for i in range(300):
        mine([words(i)], miner, service=f"service-{i % 30}")
    assert len(miner) <= 100


def test_a_dropped_template_that_comes_again_is_mined_anew():
    miner = TemplateMiner(TemplateConfig(max_templates_per_service=5, similarity=1.0))
    (first,) = mine(["rare event"], miner)
    mine([words(i) for i in range(100)], miner)
    assert miner.describe(first) == ""
    assert mine(["rare event"], miner) == [first]
    assert miner.describe(first) == "rare event"


def test_the_cache_of_masked_lines_is_bounded_and_changes_no_id():
    small = TemplateMiner(TemplateConfig(max_cached_lines=3))
    lines = LINES * 5
    assert [i for line in lines for i in mine([line], small)] == mine(lines)
    assert small.counters["cache_cleared"] > 0


@pytest.mark.parametrize("line", ["", None, " ", "x" * 100_000, "<*> " * 5000, "{" * 3000, "\x00\x1f<script>", "ǁ7 ǁ"])
def test_hostile_lines_are_mined_like_others(line):
    miner = TemplateMiner()
    (one,) = mine([line], miner)
    assert mine([line], miner) == [one]
    assert len(miner.example(one)) <= 1000


@pytest.mark.recordings
def test_grouping_accuracy_of_known_systems_with_one_setting():
    root = os.environ.get("MENDSTREAM_DATA")
    if not root or not (Path(root) / "loghub").is_dir():
        pytest.skip("MENDSTREAM_DATA names no folder with loghub/")
    from benchmarks.loghub import grouping
    from benchmarks.loghub import mine as mine_system

    results = []
    for system in sorted(path for path in (Path(root) / "loghub").iterdir() if path.is_dir()):
        labelled, ids, _ = mine_system(system)
        results.append(grouping(labelled["EventId"].to_list(), ids))
    assert sum(accuracy for accuracy, _ in results) / len(results) >= 0.95
    assert sum(f1 for _, f1 in results) / len(results) >= 0.93


def test_long_lines_are_cut_between_tokens_and_the_column_given_stays_as_it_was():
    bodies = pl.Series(["delete " + "blk_123456 " * 300, "short"])
    before = bodies.to_list()
    miner = TemplateMiner()
    ids = miner.process(["store"] * 2, bodies).tolist()
    assert bodies.to_list() == before
    assert miner.describe(ids[0]) == "delete blk_<*>"
