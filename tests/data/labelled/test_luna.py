import numpy as np
import pytest

from labelled_files import save, write_csv
from modelsgenesis.data import data_contract, prepare_case, prepare_cases, read_labelled
from modelsgenesis.errors import DataError, ScanError

COLUMNS = ["seriesuid", "coordX", "coordY", "coordZ", "class"]
AFFINE = np.array([[-1.0, 0, 0, 30], [0, -2, 0, 20], [0, 0, 2.5, -10], [0, 0, 0, 1]])
PLACE = (11, 12, 9)


def lps(place, affine=AFFINE):
    x, y, z, _ = affine @ (*place, 1)
    return -x, -y, z


@pytest.fixture
def luna(tmp_path):
    """Two series with a bright voxel each; a third that is not there; one candidate outside."""
    for series, place in (("1.2", PLACE), ("1.3", (1, 2, 3))):
        values = np.full((24, 25, 20), -600, np.int16)
        values += np.random.default_rng(0).integers(0, 50, values.shape).astype(np.int16)
        values[place] = 300
        save(tmp_path / "subset0" / f"{series}.nii.gz", values, AFFINE)
    rows = [
        ("1.3", *lps((1, 2, 3)), 0),
        ("1.2", *lps(PLACE), 1),
        ("9.9", 0, 0, 0, 0),
        ("1.2", *lps((11, 12, 25)), 0),
    ]
    write_csv(tmp_path / "candidates_V2.csv", COLUMNS, rows)
    return tmp_path


def test_cubes_are_centred_on_the_candidates(luna):
    data = read_labelled(luna)
    assert (data.labels, data.modality, data.fit) == (("no nodule", "nodule"), "ct", "resize")
    assert [(case.patient, case.classes) for case in data.cases] == [("1.2", (1,)), ("1.2", (0,)), ("1.3", (0,))]
    assert data.notes[-1] == "left out 1 candidates of 1 series whose scans are not there"
    cube = data.cases[0].images[0].read()
    assert cube.array.shape == (64, 32, 26)
    assert np.argwhere(cube.array == 300).tolist() == [[32, 16, 13]]
    np.testing.assert_allclose(cube.affine @ (32, 16, 13, 1), AFFINE @ (*PLACE, 1))
    case = prepare_case(data.cases[0], data, data_contract(data), size=(16, 16, 16))
    assert case.image.shape == (1, 16, 16, 16)


def test_what_lies_over_the_edge_has_the_lowest_value(luna):
    cube = read_labelled(luna).cases[2].images[0].read()
    assert np.argwhere(cube.array == 300).tolist() == [[32, 16, 13]]
    assert cube.array[0, 0, 0] == cube.array.min() == -600


def test_a_candidate_outside_of_its_scan_is_refused(luna):
    data = read_labelled(luna / "candidates_V2.csv")
    _, refused = prepare_cases(data.cases, data, data_contract(data), size=(8, 8, 8))
    assert len(refused) == 1
    assert "lies outside of the scan of (24, 25, 20) voxels" in refused[0].reason
    with pytest.raises(ScanError, match=r"1\.2\.nii\.gz at .* mm: lies outside"):
        prepare_cases(data.cases, data, data_contract(data), strict=True)


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        (COLUMNS, ("7.7", 0, 0, 0, 1), r"none of the scans of its 1 series is below .*, as 7\.7\.mhd"),
        (COLUMNS, ("1.2", 0, "x", 0, 1), "line 2: expected three coordinates in mm and class 0 or 1"),
        (COLUMNS, ("1.2", 0, 0, 0, 2), "line 2: expected three coordinates"),
        ([*COLUMNS[:3], "z", "class"], ("1.2", 0, 0, 0, 1), "no column coordz"),
    ],
)
def test_says_what_is_wrong(luna, columns, row, message):
    write_csv(luna / "candidates_V2.csv", columns, [row])
    with pytest.raises(DataError, match=message):
        read_labelled(luna)
