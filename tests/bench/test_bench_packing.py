"""The packing benchmark runs on a folder of traces, compares with a published table and says what it lacks."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def write_traces(folder: Path) -> None:
    nodes = "name,cpu_milli,memory_mib,gpu,model\n" + "".join(f"n{i},64000,262144,8,A\n" for i in range(4))
    header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
    pods = header + "".join(f"p{i},4000,1024,1,{milli},\n" for i, milli in enumerate((500, 500, 1000)))
    (folder / "openb_nodes_gpu_node.csv.gz").write_bytes(gzip.compress(nodes.encode()))
    (folder / "openb_pods_small.csv.gz").write_bytes(gzip.compress(pods.encode()))
    published = "".join(f"small,{policy},{at},{min(at, 100)}\n" for policy in ("FGD", "BestFit") for at in (95, 100))
    (folder / "fgd_reference.csv").write_text("workload,policy,arrived_pct,alloc_gpu_pct_mean\n" + published)


def test_the_packing_benchmark_runs_on_any_folder_of_traces(tmp_path: Path) -> None:
    write_traces(tmp_path)
    found = tmp_path / "found.json"
    done = run_bench("packing", "--data", str(tmp_path), "--seeds", "2", "--json", str(found))
    assert found.exists(), done.stderr
    measures = {measure["name"]: measure for measure in json.loads(found.read_bytes())["measures"]}
    assert len(measures["packing gpu small"]["runs"]) == 2
    assert measures["packing gpu small"]["runs"][0] > 90
    assert "packing bestfit small: distance from published" in measures
    assert measures["packing gpu: choices on 4 agents"]["runs"][0] > 0
    assert "published FGD" in done.stdout


def test_the_packing_benchmark_says_that_it_needs_data() -> None:
    done = run_bench("packing")
    assert done.returncode == 2
    assert "packing needs --data DIR" in done.stderr
