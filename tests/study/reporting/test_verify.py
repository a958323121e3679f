"""Committed results against recomputed ones: what differs is named, what is merely older is told apart."""

import copy
import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from asymlib.study.params import load_ablations, load_params
from asymlib.study.reporting import verify
from asymlib.study.reporting.comparison import (
    Cell,
    as_now,
    compare_records,
    compare_results,
    compare_short_runs,
    compare_tables,
    report,
)

INF, NAN = float("inf"), float("nan")
TABLE = pd.DataFrame(
    {
        "variant": ["vanilla", "base"],
        "seed": [0, 0],
        "source": ["own", "own"],
        "metric": ["hole_psnr", "hole_psnr"],
        "value": [38.2, 40.5],
        "low": [37.0, NAN],
        "n": [60, 60],
    }
)
RECORD = {
    "commit": "abc1234",
    "code": "c927eb37a9f8",
    "versions": {"torch": "2.14.1"},
    "seed": 0,
    "row": {"scale": "base", "condition": None},
    "settings": {"steps": 1800, "perceptual": "effnet_lite0"},
}


def verdicts(cells) -> dict[str, str]:
    """Cell -> verdict, of those that are not identical."""
    return {cell.cell: cell.verdict for cell in cells if cell.verdict != "identical"}


def changed(record: dict, **entries) -> dict:
    """A copy with some entries changed; SECTION__KEY for one of a section."""
    record = copy.deepcopy(record)
    for name, value in entries.items():
        section, _, key = name.partition("__")
        if key:
            record[section][key] = value
        else:
            record[section] = value
    return record


def write(folder, file, content):
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pd.DataFrame):
        content.to_csv(folder / file, index=False)
    else:
        (folder / file).write_text(json.dumps(content))


@pytest.mark.parametrize(
    "committed, recomputed, verdict",
    [
        (INF, 38.2, "different"),
        (38.2, INF, "different"),
        (INF, -INF, "different"),
        (INF, INF, "identical"),
        (NAN, NAN, "identical"),
        (NAN, 38.2, "different"),
        (38.2, NAN, "different"),
        (NAN, INF, "different"),
        (0.123456, 0.1234561, "identical"),
        (0.123456, 0.123457, "different"),
        (0.0, 1e-12, "different"),
        (0.0, 0.0, "identical"),
        ("holds", "holds", "identical"),
        ("holds", "open", "different"),
        ("holds", NAN, "different"),
    ],
)
def test_two_values_are_alike_to_the_digits_stored_and_infinity_is_like_no_number(committed, recomputed, verdict):
    """Breaks when an infinite or a missing value passes as whatever stands beside it."""
    assert Cell("a.csv", "value", committed, recomputed).verdict == verdict


@pytest.mark.parametrize(
    "committed, recomputed, verdict",
    [
        (30.0, 30.4, "within tolerance"),
        (30.0, 30.6, "different"),
        (INF, 30.0, "different"),
        (30.0, NAN, "different"),
        (INF, INF, "identical"),
    ],
)
def test_a_tolerance_excuses_what_rounding_can_do_and_no_more(committed, recomputed, verdict):
    """Breaks when a tolerance lets infinite or missing values through."""
    assert Cell("a.png", "value", committed, recomputed, tolerance=0.5).verdict == verdict


def tables(tmp_path, recomputed, only_shared=False):
    write(tmp_path, "inpainting.csv", TABLE)
    return list(compare_tables(tmp_path / "inpainting.csv", recomputed, only_shared))


def test_a_changed_number_is_named_and_the_rest_is_identical(tmp_path):
    """Breaks when rows are paired by their position, or a missing interval is no value."""
    recomputed = TABLE.iloc[::-1].assign(value=[40.6, 38.2])
    cells = tables(tmp_path, recomputed)
    assert len(cells) == 6
    assert verdicts(cells) == {"base 0 own hole_psnr value": "different"}


@pytest.mark.parametrize("committed_has_it", [True, False])
def test_a_column_of_one_table_alone_is_named_once(tmp_path, committed_has_it):
    """Breaks when a lost column is an error without a name, or an additional one is not seen."""
    with_it, without = TABLE, TABLE.drop(columns="low")
    write(tmp_path, "inpainting.csv", with_it if committed_has_it else without)
    cells = list(compare_tables(tmp_path / "inpainting.csv", without if committed_has_it else with_it))
    assert verdicts(cells) == {"column low": "different"}
    missing = next(cell for cell in cells if cell.cell == "column low")
    here, there = ("there", "missing") if committed_has_it else ("missing", "there")
    assert missing[:4] == ("inpainting.csv", "column low", here, there) and len(cells) == 5


def test_a_column_that_names_the_rows_can_be_missing_too(tmp_path):
    """Breaks when rows cannot be paired any more, or ones that then look alike are merged."""
    cells = tables(tmp_path, TABLE.drop(columns="variant"))
    assert verdicts(cells) == {"column variant": "different"} and len(cells) == 7


@pytest.mark.parametrize("committed_has_it", [True, False])
def test_a_row_of_one_table_alone_is_named_unless_only_shared_ones_are_asked_for(tmp_path, committed_has_it):
    """Breaks when a row that was lost, or came, is passed over."""
    one, two = (TABLE, TABLE.iloc[:1]) if committed_has_it else (TABLE.iloc[:1], TABLE)
    write(tmp_path, "inpainting.csv", one)
    assert verdicts(compare_tables(tmp_path / "inpainting.csv", two)) == {"base 0 own hole_psnr": "different"}
    assert verdicts(compare_tables(tmp_path / "inpainting.csv", two, only_shared=True)) == {}


def test_a_row_that_is_there_twice_is_named(tmp_path):
    """Breaks when the second of two rows with one name replaces the first."""
    found = verdicts(tables(tmp_path, pd.concat([TABLE, TABLE.iloc[:1]])))
    assert found == {"vanilla 0 own hole_psnr #2": "different"}


def test_rows_of_pairs_are_told_apart_by_the_pair(tmp_path):
    """Breaks when the short runs' rows, many to a variant, are compared with one another."""
    rows = pd.concat([TABLE.assign(pair=pair, photograph="coffee") for pair in ("coffee_0", "coffee_1")])
    write(tmp_path, "rows.csv", rows)
    recomputed = rows.assign(value=[38.2, 40.5, 38.3, 40.5])
    found = verdicts(compare_tables(tmp_path / "rows.csv", recomputed))
    assert found == {"vanilla 0 own hole_psnr coffee_1 coffee value": "different"}


@pytest.mark.parametrize(
    "entries, verdict",
    [
        ({"settings__steps": 200}, {"settings.steps": "different"}),
        ({"seed": 1}, {"seed": "different"}),
        ({"row__condition": {"layers": 0}}, {"row.condition": "different"}),
        ({"commit": "def5678", "code": "0"}, {"commit": "other code", "code": "other code"}),
        ({"versions__torch": "2.15.0"}, {"versions.torch": "other versions"}),
        ({"latents": "8efd"}, {"latents": "not recorded"}),
        ({"settings__clip": None}, {"settings.clip": "not recorded"}),
    ],
)
def test_a_recomputed_record_that_differs_says_in_which_way(entries, verdict):
    """Breaks when a changed setting passes, or what is merely older or newer counts as one."""
    assert verdicts(compare_records("base.json", RECORD, changed(RECORD, **entries))) == verdict


def test_a_key_that_a_new_record_lacks_is_different():
    """Breaks when a record may lose what it said."""
    recomputed = {key: entry for key, entry in RECORD.items() if key != "seed"}
    assert verdicts(compare_records("base.json", RECORD, recomputed)) == {"seed": "different"}


def test_a_key_that_is_added_below_a_rows_condition_is_a_change_and_not_a_new_key():
    """Breaks when `condition`, which names only what differs from the paper, is taken for a fixed set of keys."""
    committed = changed(RECORD, row__condition={"layers": 0})
    recomputed = changed(RECORD, row__condition={"layers": 0, "copy_known": True})
    assert verdicts(compare_records("base.json", committed, recomputed)) == {"row.condition": "different"}


@pytest.mark.parametrize("used, found", [("effnet_lite0", {}), ("lpips_vgg", {"settings.perceptual": "different"})])
def test_an_old_record_of_what_was_available_is_held_to_the_loss_that_it_used(used, found):
    """Breaks when an old record of the same loss counts as different, or one of another loss does not."""
    committed = changed(RECORD, settings__perceptual="available", perceptual_loss=used)
    recomputed = changed(RECORD, perceptual_loss=used)
    assert verdicts(compare_records("base.json", committed, recomputed)) == found


@pytest.fixture
def two_folders(tmp_path):
    """Results with a table and a record, and the same again."""
    for place in ("committed", "recomputed"):
        write(tmp_path / place, "tables/inpainting.csv", TABLE)
        write(tmp_path / place, "provenance/base.json", RECORD)
    return tmp_path / "committed", tmp_path / "recomputed"


def test_results_that_are_alike_are_compared_in_tables_and_records(two_folders):
    """Breaks when nothing is compared."""
    cells = list(compare_results(*two_folders))
    assert verdicts(cells) == {} and {cell.file for cell in cells} == {"inpainting.csv", "provenance/base.json"}


@pytest.mark.parametrize("at_fault", [0, 1])
@pytest.mark.parametrize("file", ["tables/inpainting.csv", "provenance/base.json"])
def test_a_file_of_one_folder_alone_is_named(two_folders, file, at_fault):
    """Breaks when a file that one side lacks is an error or passed over."""
    (two_folders[at_fault] / file).unlink()
    cells = [cell for cell in compare_results(*two_folders) if cell.verdict == "different"]
    here, there = ("missing", "there") if at_fault == 0 else ("there", "missing")
    assert cells == [Cell(file.removeprefix("tables/"), "the file", here, there)]


def test_a_record_that_is_no_json_is_one_sentence(two_folders):
    """Breaks when a torn file raises a library's error without its name."""
    (two_folders[1] / "provenance" / "base.json").write_text("{")
    with pytest.raises(ValueError, match="base.json: got no JSON .*, expected a record"):
        list(compare_results(*two_folders))


def test_short_runs_are_compared_row_by_row_and_run_by_run(tmp_path):
    """Breaks when a changed row, setting or lost run of the ablations is not seen."""
    rows = TABLE.assign(pair="coffee_0")
    for place in ("committed", "recomputed"):
        write(tmp_path / place, "rows.csv.gz", rows)
        write(tmp_path / place, "provenance.json", {"base_0": RECORD | {"seconds": {"training": 1.0}}, "gan_0": RECORD})
    folders = tmp_path / "committed", tmp_path / "recomputed"
    assert verdicts(compare_short_runs(*folders)) == {}
    write(folders[1], "rows.csv.gz", rows.assign(value=[38.2, 1.0]))
    write(
        folders[1],
        "provenance.json",
        {"base_0": changed(RECORD, settings__steps=2, code="0") | {"seconds": {"training": 2.0}}},
    )
    assert verdicts(compare_short_runs(*folders)) == {
        "base 0 own hole_psnr coffee_0 value": "different",
        "base_0 settings.steps": "different",
        "base_0 code": "other code",
        "base_0 seconds.training": "another time",
        "gan_0": "different",
    }
    (folders[1] / "rows.csv.gz").unlink()
    assert verdicts(compare_short_runs(*folders))["the file"] == "different"


def test_the_report_counts_differences_alone_and_prints_every_kind(capsys):
    """Breaks when older code or a new key fails a verification, or goes unsaid."""
    cells = [
        Cell("provenance/base.json", "commit", "a", "b", otherwise="other code"),
        Cell("provenance/base.json", "latents", None, "c"),
        Cell("provenance/base.json", "seed", 0.0, 0.0),
        Cell("width.csv", "base value", INF, 38.2),
    ]
    assert report(cells) == 1
    assert capsys.readouterr().out.splitlines() == [
        "provenance: 1 other code",
        "provenance: 1 not recorded",
        "provenance: 1 identical",
        "width.csv: 1 different",
        "  other code, such as provenance/base.json, commit: committed a, recomputed b",
        "  not recorded, such as provenance/base.json, latents: committed None, recomputed c",
        "  width.csv, base value: committed inf, recomputed 38.2",
        "1 cells differ",
    ]
    assert report(cells[:3]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "every cell that can be computed again agrees"


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Params, and results with a record of every decoder as it would be written now, by a clean commit."""
    monkeypatch.delenv("ASYMLIB_PROFILE", raising=False)
    params = load_params("smoke")
    for name in params.decoders:
        record = verify.present_record(params, name, params.seed) | {"commit": "abc1234", "code": "0"}
        write(tmp_path, f"provenance/{name}.json", record)
    return params, tmp_path


def rewrite(results, name, **entries):
    path = f"provenance/{name}.json"
    write(results, path, changed(json.loads((results / path).read_text()), **entries))


def test_records_that_say_what_params_yaml_says_are_identical(recorded):
    """Breaks when records are not read, or their numbers change on the way through JSON."""
    params, results = recorded
    cells = list(verify.verify_provenance(results, params))
    assert verdicts(cells) == {} and len({cell.file for cell in cells}) == len(params.decoders)
    assert {"seed", "row.scale", "settings.steps", "versions.torch", "commit"} <= {cell.cell for cell in cells}


@pytest.mark.parametrize(
    "entries, found",
    [
        ({"commit": "abc1234+"}, {"commit": "different"}),
        ({"settings__steps": 7}, {"settings.steps": "different"}),
        ({"settings__perceptual": "available", "perceptual_loss": "effnet_lite0"}, {}),
        (
            {"settings__perceptual": "available", "perceptual_loss": "lpips_vgg"},
            {"settings.perceptual": "different"},
        ),
        ({"settings__dropped": 1}, {"settings.dropped": "different"}),
        ({"row__branch": False}, {"row.branch": "different"}),
        ({"seed": 1}, {"seed": "different"}),
        ({"stream": {"size": 256}}, {"stream.size": "different"}),
        ({"versions__torch": "1.0"}, {"versions.torch": "other versions"}),
        ({"code": "1", "data": "2"}, {}),  # cannot be recomputed here
    ],
)
def test_a_record_that_says_something_else_is_named(recorded, entries, found):
    """Breaks when a table can come from other settings, rows, seeds or uncommitted code than params.yaml's."""
    params, results = recorded
    rewrite(results, "base", **entries)
    cells = list(verify.verify_provenance(results, params))
    assert verdicts(cells) == found
    assert {c.file for c in cells if c.verdict != "identical"} <= {"provenance/base.json"}


def test_what_an_old_record_does_not_say_is_not_recorded(recorded):
    """Breaks when a record of before a setting was there fails, or passes unsaid."""
    params, results = recorded
    record = json.loads((results / "provenance/base.json").read_text())
    del record["settings"]["ring_weight"], record["commit"]
    write(results, "provenance/base.json", record)
    found = verdicts(verify.verify_provenance(results, params))
    assert found == {"settings.ring_weight": "not recorded", "commit": "not recorded"}


def test_a_record_too_few_or_too_many_is_named(recorded):
    """Breaks when a decoder's record is lost, or one stays of a decoder that has gone."""
    params, results = recorded
    (results / "provenance/base.json").rename(results / "provenance/old.json")
    cells = [cell for cell in verify.verify_provenance(results, params) if cell.verdict == "different"]
    assert cells == [
        Cell("provenance/base.json", "the file", "missing", "there"),
        Cell("provenance/old.json", "the file", "there", "missing"),
    ]


def test_records_of_short_runs_are_held_to_params_yaml_too(tmp_path, monkeypatch):
    """Breaks when a short run's row, settings or seed can be another than params.yaml's, or a run is lost."""
    monkeypatch.delenv("ASYMLIB_PROFILE", raising=False)
    ablations, params = load_ablations()
    records = {
        f"{name}_{seed}": verify.present_record(params, name, seed)
        | {"commit": "abc1234", "split": params.evaluation.split, "every": ablations.every}
        | {"sampling_steps": params.inpainter.sampling_steps}
        for name, row in ablations.rows.items()
        for seed in row.seeds or ablations.seeds
    }
    write(tmp_path, "provenance.json", records)
    assert verdicts(verify.verify_short_runs(tmp_path, ablations, params)) == {}
    records["base_1"] = changed(records["base_1"], settings__batch=99, seed=2, commit="abc1234+", every=99)
    del records["base_0"]["every"]
    records["old_0"] = records.pop("gan_0")
    write(tmp_path, "provenance.json", records)
    named = ["base_1 settings.batch", "base_1 seed", "base_1 commit", "base_1 every", "old_0", "gan_0"]
    found = verdicts(verify.verify_short_runs(tmp_path, ablations, params))
    assert found == dict.fromkeys(named, "different") | {"base_0 every": "not recorded"}
    with pytest.raises(FileNotFoundError, match="provenance.json is missing; .* `make ablations` makes it"):
        list(verify.verify_short_runs(tmp_path / "nowhere", ablations, params))


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A root with results, whose clone and runs are pretended: what is run, in which order; `fails` names one."""
    done, root = [], tmp_path / "root"
    for file, content in (("tables/inpainting.csv", TABLE), ("provenance/base.json", RECORD)):
        write(root / "results" / "smoke", file, content)
    write(root / "results" / "ablations", "rows.csv.gz", TABLE)

    def run(command, cwd, env):
        assert "ASYMLIB_COMMIT" not in env
        done.append(" ".join(command[1:]).replace(str(root), "ROOT"))
        if command[0] == "git":
            write(Path(command[-1]), "results/smoke/tables/of_no_stage.csv", TABLE)
            done[-1] = "clone"
        elif command[-1] == "smoke":
            write(Path(cwd), "results/smoke/tables/inpainting.csv", TABLE.assign(value=[38.2, INF]))
            write(Path(cwd), "results/smoke/provenance/base.json", changed(RECORD, code="0"))
        elif command[-1].endswith("ablations"):
            write(Path(cwd), "results/ablations/rows.csv.gz", TABLE.assign(value=[1.0, 40.5]))
        return subprocess.CompletedProcess(command, int(run.fails is not None and run.fails in command))

    run.done, run.root, run.fails = done, root, None
    monkeypatch.setenv("ASYMLIB_COMMIT", "abc1234")
    monkeypatch.setattr(verify.subprocess, "run", run)
    return run


def test_everything_is_a_fresh_clone_with_the_pipeline_and_the_short_runs(commands, capsys):
    """Breaks when the short runs are left out, or files that no stage makes are compared with themselves."""
    found = verdicts(verify.verify_all(commands.root, load_params("smoke")))
    assert commands.done == [
        "clone",
        "-m asymlib.study.profiles smoke",
        "-m asymlib.study.profiles default inpainter",
        "-m asymlib.study.ablations",
    ]
    assert found == {
        "base 0 own hole_psnr value": "different",
        "code": "other code",
        "vanilla 0 own hole_psnr value": "different",
    }
    assert "asymlib.study.ablations in" in capsys.readouterr().out


def test_a_run_that_fails_or_has_nothing_to_be_compared_with_is_one_sentence(commands):
    """Breaks when a failed run passes for one without differences."""
    commands.fails = "asymlib.study.ablations"
    with pytest.raises(RuntimeError, match="got a failure of .*asymlib.study.ablations, expected it to end"):
        list(verify.verify_all(commands.root, load_params("smoke")))
    with pytest.raises(FileNotFoundError, match="default/tables are missing"):
        list(verify.verify_all(commands.root, load_params("default")))


def test_an_option_that_is_gone_and_was_off_is_no_difference():
    now = {"settings": {"steps": 1}}
    assert as_now({"settings": {"steps": 1, "geometric_mean": False}}) == as_now(now) == now
    assert as_now({"settings": {"geometric_mean": True}}) != as_now({"settings": {}})
    assert as_now({"seed": 0}) == {"seed": 0}
