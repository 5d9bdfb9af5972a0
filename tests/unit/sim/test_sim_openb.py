"""Traces are read line by line, and what is wrong in them is named by file, line and column."""

import gzip
from pathlib import Path

import pytest

from corral.allocator.packing import Demand, Supply
from corral.lib.errors import Invalid, NotFound
from corral.sim.openb import Node, Pod, read_nodes, read_pods

NODES = "name,cpu_milli,memory_mib,gpu,model\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,creation_time,deletion_time,scheduled_time\n"


def written(folder: Path, text: str, name: str = "list.csv.gz") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["list.csv.gz", "list.csv"])
def test_nodes_are_read_gzipped_or_not(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, NODES + "n0,64000,262144,2,P100\nn1,32000,131072,0,\n", name)
    assert list(read_nodes(path)) == [
        Node(name="n0", supply=Supply(cpu_milli=64000, mem_mb=262144, gpus=2, model="P100")),
        Node(name="n1", supply=Supply(cpu_milli=32000, mem_mb=131072, gpus=0, model="")),
    ]


def test_pods_are_read_with_slices_models_and_times(tmp_path: Path) -> None:
    lines = "p0,6000,12288,1,460,V100M32|P100|P100,LS,427061,12902960.5,\n"
    lines += "p1,8000,30517,0,0,,BE,,,\np2,1,2,8,1000,,,,,\n"
    assert list(read_pods(written(tmp_path, PODS + lines))) == [
        Pod(
            name="p0",
            demand=Demand(cpu_milli=6000, mem_mb=12288, gpus=1, gpu_milli=460, models=("P100", "V100M32")),
            qos="LS",
            created_at=427061.0,
            deleted_at=12902960.5,
        ),
        Pod(name="p1", demand=Demand(cpu_milli=8000, mem_mb=30517), qos="BE"),
        Pod(name="p2", demand=Demand(cpu_milli=1, mem_mb=2, gpus=8, gpu_milli=1000)),
    ]


def test_columns_may_stand_in_any_order_and_more_may_be_there(tmp_path: Path) -> None:
    path = written(tmp_path, "pod_phase,gpu_spec,gpu_milli,num_gpu,memory_mib,cpu_milli,sn\nRunning,,1000,1,7,5,p\n")
    assert list(read_pods(path)) == [Pod(name="p", demand=Demand(cpu_milli=5, mem_mb=7, gpus=1, gpu_milli=1000))]


def test_reading_is_lazy_so_that_a_fault_further_down_comes_later(tmp_path: Path) -> None:
    found = read_nodes(written(tmp_path, NODES + "n0,1,1,0,\nn1,x,1,0,\n"))
    assert next(found).name == "n0"
    with pytest.raises(Invalid):
        next(found)


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("p,x,1,0,0,,,,,", "cpu_milli is 'x'"),
        ("p,1,-2,0,0,,,,,", "memory_mib is -2"),
        ("p,1,1,1.5,0,,,,,", "num_gpu is '1.5'"),
        ("p,1,1,1,0,,,,,", "gpu_milli is 0 with num_gpu 1"),
        ("p,1,1,1,1001,,,,,", "gpu_milli is 1001 with num_gpu 1"),
        ("p,1,1,2,500,,,,,", "gpu_milli is 500 with num_gpu 2"),
        ("p,1,1,0,0,,,soon,,", "creation_time is 'soon'"),
        ("p,1,1,0,0,,,,nan,", "deletion_time is 'nan'"),
        (",1,1,0,0,,,,,", "name is empty"),
    ],
)
def test_a_wrong_cell_is_named_by_file_line_and_column(tmp_path: Path, line: str, column: str) -> None:
    path = written(tmp_path, PODS + "good,1,1,0,0,,,,,\n" + line + "\n")
    with pytest.raises(Invalid) as caught:
        list(read_pods(path))
    assert str(caught.value).startswith(f"{path} line 3 column {column}")


def test_a_line_of_another_width_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, NODES + "n0,1,1,0\n")
    with pytest.raises(Invalid, match="line 2 has 4 columns but the header 5"):
        list(read_nodes(path))


@pytest.mark.parametrize(
    ("header", "missing"), [("name,cpu_milli,gpu,model\n", "memory_mib"), ("cpu_milli\n", "name"), ("", "name")]
)
def test_a_missing_column_is_named(tmp_path: Path, header: str, missing: str) -> None:
    with pytest.raises(Invalid, match=f"line 1 lacks the column {missing}"):
        list(read_nodes(written(tmp_path, header)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no trace file at"):
        list(read_nodes(tmp_path / "nowhere.csv.gz"))


def test_a_file_cut_short_is_an_error_rather_than_fewer_nodes(tmp_path: Path) -> None:
    whole = gzip.compress((NODES + "".join(f"n{i},{i},1,0,\n" for i in range(5000))).encode())
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Invalid, match="cannot be read beyond line"):
        list(read_nodes(path))


def test_a_file_that_is_not_gzip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv.gz"
    path.write_text(NODES)
    with pytest.raises(Invalid, match="cannot be read"):
        list(read_nodes(path))
