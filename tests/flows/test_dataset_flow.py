from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.training import make_dataset
from models.training import examples
from models.training.examples import identity_of
from nightsift.archive.survey import load_survey
from nightsift.cli.root import app
from nightsift.cli.training import _poor_in_hosts
from nightsift.core.errors import BadTable
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from tasks.examples import Catalogues, known_of


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("dataset"), SimulationOptions.preset("tiny", 6))


def test_command_makes_a_set_of_an_archive(survey: Path, tmp_path: Path) -> None:
    """As for a real archive: no truth, galaxies by the shapes of the template, known variables left out."""
    truth = pq.read_table(survey.parent / "truth.parquet")
    changing = pa.table({"ra": truth["ra"], "dec": truth["dec"]})
    pq.write_table(changing, tmp_path / "variables.parquet")
    out = tmp_path / "set"
    asked = ["dataset", str(out), "--survey", str(survey), "--workers", "1", "--no-track", "--seed", "4"]
    told = CliRunner().invoke(app, [*asked, "--variables", str(tmp_path / "variables.parquet")], catch_exceptions=False)
    assert told.exit_code == 0
    assert "2/2 exposures done" in told.output
    assert "without --orbits the minor planets of these frames count as bogus" in told.output
    found = examples.read(out)
    source = np.asarray(found.table["source"].to_pylist())
    assert (source == "injected").sum() >= 10
    assert set(source) <= {"injected", "random", "galaxy_residual", "galaxy_pixel"}
    assert found.card["left_out"]["at_known_objects"] >= 3, "transients of the simulation that nobody told of"
    assert found.card["set_id"] == identity_of(found)["set_id"]
    assert found.card["made"]["excluded"] == [str(tmp_path / "variables.parquet")]
    assert sum(found.card["counts"]["source"].values()) == len(found)
    assert "# Data set card" in (out / "card.md").read_text()
    put = found.card["synthetic"]
    poor = put["injected_on_galaxies"] < 0.3 * put["injected"]
    assert ("injected stars lie on a galaxy (60% asked for)" in told.output) == poor
    again = make_dataset(tmp_path / "again", load_survey(survey), seed=4, workers=1, track=False,
                         work=tmp_path / "again-parts")  # fmt: skip
    assert again.card["left_out"]["at_known_objects"] == 0
    assert json.loads((tmp_path / "again" / "card.json").read_text())["set_id"] != found.card["set_id"]


def test_few_galaxies_are_told() -> None:
    card = {"placement": {"on_hosts": 0.6}, "synthetic": {"injected": 100, "injected_on_galaxies": 29}}
    assert "only 29 of 100 injected stars" in _poor_in_hosts(card)[0]
    card["synthetic"]["injected_on_galaxies"] = 31
    assert not _poor_in_hosts(card)
    assert not _poor_in_hosts({}), "of a set that was made before"


def test_stamps_must_belong_to_their_table(survey: Path, tmp_path: Path) -> None:
    from tests.models.conftest import make_examples

    few = make_examples(12, 1)
    examples.write(tmp_path, few)
    back = examples.read(tmp_path)
    np.testing.assert_array_equal(back.stamps.data, few.stamps.data)
    np.testing.assert_array_equal(back.stamps.mask, few.stamps.mask)
    assert identity_of(back) == identity_of(few)
    assert identity_of(few.take(np.arange(11)))["set_id"] != identity_of(few)["set_id"]
    pq.write_table(back.table.slice(0, 6), tmp_path / examples.TABLE)
    with pytest.raises(BadTable, match="not those"):
        examples.read(tmp_path)
    (tmp_path / "stamps-000.parquet").unlink()
    with pytest.raises(BadTable, match="0 of 6"):
        examples.read(tmp_path)


def test_catalogue_of_galaxies_without_sizes_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ra": [1.0], "dec": [2.0]}), tmp_path / "galaxies.parquet")
    with pytest.raises(BadTable, match="radius"):
        known_of(Catalogues(galaxies=str(tmp_path / "galaxies.parquet")), "u", "f")
