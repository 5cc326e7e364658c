"""What is read from files: kinds of traces, chips, packed files; and every mistake by name."""

import gzip
import re

import pytest
from gridlease_kernel.faults import Invalid, Missing
from gridlease_scheduler.domain.job import Purpose, Tier
from gridlease_simulate import catalogue, clusterfile, spot, traces
from gridlease_simulate.changes import changed
from gridlease_simulate.policies import Production
from gridlease_simulate.replay import Replay
from gridlease_simulate.rules import Rules
from gridlease_simulate.workload import Scaling, prepared, split_devices

from .small import TWO_L4, read_trace

ALIBABA_NODES = (
    "sn,cpu_milli,memory_mib,gpu,model\nn0,32000,65536,0,\nn1,96000,393216,8,V100M32\n"
    "n2,96000,393216,8,V100M32\nn3,64000,131072,2,G2\n"
)
ALIBABA_PODS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time,"
    "scheduled_time\n"
    "p0,4000,8192,1,460,,100,400,150\n"
    "p1,4000,8192,4,1000,V100M16|V100M32,200,500,\n"
    "p2,1000,1024,0,0,,300,310,300\n"
    "p3,1000,1024,0,0,,300,,\n"
)


def test_the_example_is_a_cluster():
    cluster = clusterfile.parse(clusterfile.EXAMPLE)
    nodes = cluster.nodes()
    assert len(nodes) == 18
    assert len({node.node_id for node in nodes}) == 18
    assert nodes[0].rack == nodes[3].rack != ""
    assert cluster.group_price_nano(cluster.groups[0], "H100-80GB", Tier.SPOT) == 1_076_000_000
    assert cluster.price_nano("L4-24GB", Tier.ON_DEMAND) == 700_000_000
    assert cluster.sites[0].pue_milli == 1_250


@pytest.mark.parametrize("pack", [False, True])
def test_alibabas_nodes(tmp_path, pack):
    path = tmp_path / ("nodes.csv.gz" if pack else "nodes.csv")
    content = ALIBABA_NODES.encode()
    path.write_bytes(gzip.compress(content) if pack else content)
    cluster = clusterfile.load(path)
    nodes = {node.node_id: node for node in cluster.nodes()}
    assert set(nodes) == {"n0", "n1", "n2", "n3"}
    assert [device.chip for device in nodes["n1"].devices] == ["V100-32GB"] * 8
    assert nodes["n0"].cpu_milli == 32_000
    assert not nodes["n0"].devices
    assert cluster.widest() == 8


def test_alibabas_pods():
    cluster = clusterfile.parse(TWO_L4)
    trace = read_trace(ALIBABA_PODS, cluster)
    assert trace.kind == "alibaba"
    part, whole, cores = trace.arrivals
    assert (part.submit_ms, part.duration_ms) == (100_000, 250_000)
    assert part.needs.accelerator.count == 1
    assert whole.duration_ms == 300_000
    assert whole.needs.accelerator.chips == ("V100-16GB", "V100-32GB")
    assert cores.needs.accelerator is None
    assert "1 pods ask for a part of one GPU" in trace.notes[0]
    assert "whole device" in trace.notes[0]
    assert "1 pods without a time" in trace.notes[1]


def test_a_part_of_a_device_where_devices_are_split():
    cluster = clusterfile.parse(TWO_L4).split(4)
    trace = read_trace(ALIBABA_PODS, cluster)
    assert [x.needs.accelerator.count for x in trace.arrivals[:2]] == [2, 16]
    assert "4 equal parts" in trace.notes[0]
    assert len(cluster.nodes()[0].devices) == 8
    small = read_trace("submit_s,duration_s,chip\n0,60,L4\n", cluster)
    outcome = Replay(cluster, small, Production, Rules()).run()
    assert outcome.cost_nano() == 1_200_000_000 // 60
    assert outcome.utilisation()[0].percent == 50


def test_phillys_jobs():
    text = (
        "submit_time,duration_s,gpus,virtual_cluster\n"
        "2017-10-09 06:13:03,2951,1,a\n2017-10-09 06:14:03,60,6,b\n"
    )
    trace = read_trace(text, clusterfile.parse(TWO_L4), purpose=Purpose.BATCH)
    one, six = trace.arrivals
    assert six.submit_ms - one.submit_ms == 60_000
    assert (one.tasks, one.needs.accelerator.count) == (1, 1)
    assert (six.tasks, six.needs.accelerator.count) == (3, 2)
    assert (six.tenant, six.needs.purpose) == ("tenants/b", Purpose.BATCH)


THROUGHPUTS = (
    "worker_type,model,batch_size,scale_factor,steps_per_s\n"
    "v100,ResNet,64,1,4.0\nk80,ResNet,64,1,0.5\np100,ResNet,64,1,0\n"
    "v100,ResNet,64,4,10\nv100_unconsolidated,ResNet,64,4,5\n"
)
GAVEL = (
    "model,batch_size,scale_factor,total_steps,arrival_s\n"
    "ResNet,64,1,400,0.0\nResNet,64,4,1000,7.5\nUnknown,1,1,5,9\n"
)


def test_gavels_jobs(tmp_path):
    table = tmp_path / "throughputs.csv"
    table.write_text(THROUGHPUTS)
    cluster = clusterfile.parse(TWO_L4)
    trace = read_trace(GAVEL, cluster, throughputs=table)
    one, gang = trace.arrivals
    scaling = Scaling(cluster.catalogue)
    assert scaling.duration_ms(one, "V100-16GB", 1) == 100_000
    assert scaling.duration_ms(one, "K80-12GB", 1) == 800_000
    assert one.needs.accelerator.chips == ("V100", "K80")
    assert (gang.submit_ms, gang.tasks, gang.needs.accelerator.count) == (7_500, 2, 2)
    assert scaling.duration_ms(gang, "V100-16GB", 1) == 100_000
    assert scaling.duration_ms(gang, "V100-16GB", 2) == 200_000
    assert "1 jobs have no measured throughput" in trace.notes[-1]


@pytest.mark.parametrize(
    ("devices", "widest", "expected"),
    [(1, 8, (1, 1)), (8, 8, (1, 8)), (16, 8, (2, 8)), (12, 8, (2, 6)), (7, 4, (7, 1)),
     (5, 0, (1, 5))],
)  # fmt: skip
def test_wide_jobs_become_gangs_of_equal_tasks(devices, widest, expected):
    assert split_devices(devices, widest) == expected


def test_a_trace_and_its_packed_twin_give_the_same_run(tmp_path):
    text = "submit_s,duration_s,chip,memory\n0,60,L4,1GB\n1,60,L4,2GB\n2,60,L4,\n"
    plain, packed = tmp_path / "t.csv", tmp_path / "t.csv.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    cluster = clusterfile.parse(TWO_L4)
    reading = traces.Reading(cluster.catalogue, cluster.widest())
    runs = [
        Replay(cluster, prepared(traces.load(path, reading)), Production, Rules()).run()
        for path in (plain, packed)
    ]
    assert runs[0].jobs == runs[1].jobs
    assert runs[0].leases == runs[1].leases


def test_what_if():
    cluster = clusterfile.parse(clusterfile.EXAMPLE)
    more = changed(cluster, ["2 x H100:8", "1xT4:4@north"], ["8 x l4", "2 x cpu"])
    capacity = {}
    for node in more.nodes():
        for device in node.devices:
            capacity[device.chip] = capacity.get(device.chip, 0) + 1
    assert capacity == {"H100-80GB": 48, "T4-16GB": 4}
    assert len(more.nodes()) == 4 + 2 + 1 + 4
    twin = more.groups[2]
    assert (twin.cpu_milli, twin.price_nano) == (128_000, 2_690_000_000)
    assert not changed(cluster, [], ["8 x l4"]).catalogue.unknown(["L4"])


def test_spot_prices_of_instances_are_of_one_device(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text(
        "zone,instance_type,time_utc,usd_per_h\n"
        "a,p3.2xlarge,2020-01-01T00:00:00,1.00\n"
        "b,p3.16xlarge,2020-01-01T00:00:00,16.00\n"
        "b,p3.16xlarge,2020-01-01T01:00:00,4.00\n"
        "a,p3.2xlarge,2020-01-01T02:00:00,0.25\n"
        "a,m5.large,2020-01-01T02:00:00,0.01\n"
    )
    known = catalogue.load()
    prices = spot.load(path, known)
    hour = 3_600_000
    assert prices.series("V100-16GB") == (
        (0, 1_000_000_000), (hour, 500_000_000), (2 * hour, 250_000_000)
    )  # fmt: skip
    assert prices.mean_nano("V100-32GB") == 750_000_000
    assert prices.series("T4-16GB") is None
    only_a = spot.load(path, known, "a")
    assert only_a.cost_nano("V100-16GB", 2_000, hour, 3 * hour) == 2_000_000_000 + 500_000_000
    own = tmp_path / "own.csv"
    own.write_text("chip,time_s,price_per_hour\nL4,0,0.30\nL4,60,0.36\n")
    assert spot.load(own, known).cost_nano("L4-24GB", 1_000, 0, 120_000) == 5_000_000 + 6_000_000


NODES = '[[nodes]]\nname = "a"\nchip = "L4"\ndevices = 2\n'


@pytest.mark.parametrize(
    ("text", "reason", "field", "remedy"),
    [
        ("x = ", "NOT_TOML", "CLUSTER", "--example"),
        ("", "NO_NODES", "nodes", "[[nodes]]"),
        ("[nodes]\ncount = 1\n", "NOT_A_LIST", "nodes", "two brackets"),
        (NODES + "devises = 3\n", "UNKNOWN_FIELD", "nodes[0].devises", "devices"),
        ("colour = 1\n" + NODES, "UNKNOWN_FIELD", "colour", "Known"),
        (NODES.replace("L4", "L5"), "UNKNOWN_CHIP", "nodes[0].chip", "L4"),
        (NODES.replace("2", "-2"), "BAD_NUMBER", "nodes[0].devices", "whole number"),
        (NODES.replace("2", "2.5"), "BAD_NUMBER", "nodes[0].devices", "whole number"),
        (NODES.replace("devices = 2", "devices = 0"), "CHIP_WITHOUT_DEVICES",
         "nodes[0].devices", "leave both out"),
        ('[[nodes]]\nname = "a"\ndevices = 2\n', "CHIP_WITHOUT_DEVICES", "nodes[0].chip", "chip"),
        (NODES + 'memory = "lots"\n', "BAD_SIZE", "nodes[0].memory", "8GB"),
        (NODES + 'cpu = "many"\n', "BAD_CPU", "nodes[0].cpu", "cores"),
        (NODES + 'price = "cheap"\n', "BAD_MONEY", "nodes[0].price", "1.50"),
        (NODES + "price = -1\n", "BAD_MONEY", "nodes[0].price", "1.50"),
        (NODES + 'site = "moon"\n', "UNKNOWN_SITE", "nodes[0].site", "site"),
        (NODES + "count = 0\n", "BAD_NUMBER", "nodes[0].count", "1"),
        (NODES + "count = 300000\n", "BAD_NUMBER", "nodes[0].count", "200000"),
        (NODES + NODES, "NAMED_TWICE", "nodes[1].name", "own name"),
        (NODES + "name = 3\n", "NOT_TOML", "CLUSTER", "--example"),
        ("[[site]]\npue = 1.2\n" + NODES, "FIELD_MISSING", "site[0].name", "--example"),
        ('[[site]]\nname = "n"\npue = 0.5\n' + NODES, "BAD_NUMBER", "site[0].pue", "1.25"),
        ('[[site]]\nname = "n"\ncarbon_g_per_kwh = [1, 2]\n' + NODES, "NOT_24_HOURS",
         "site[0].carbon_g_per_kwh", "24"),
        ('[[site]]\nname = "n"\n[[site]]\nname = "n"\n' + NODES, "NAMED_TWICE", "site[1].name",
         "own name"),
        (NODES + '[prices]\nH1000 = "1"\n', "UNKNOWN_CHIP", "prices.H1000", "Did you mean"),
        (NODES + "[tiers]\nspotty = 3\n", "UNKNOWN_FIELD", "tiers.spotty", "spot"),
        (NODES + "[tiers]\nspot = 2000\n", "BAD_NUMBER", "tiers.spot", "whole number"),
        (NODES + '[[chip]]\nname = "New"\nidle_watts = 1\n', "FIELD_MISSING",
         "chip[0].peak_watts", "--example"),
        ("busy_percent = 101\n" + NODES, "BAD_NUMBER", "busy_percent", "whole number"),
        ("name = 3\n" + NODES, "BAD_TEXT", "name", "quotes"),
    ],
)  # fmt: skip
def test_mistakes_in_a_cluster(text, reason, field, remedy):
    with pytest.raises(Invalid) as caught:
        clusterfile.parse(text)
    fault = caught.value
    assert (fault.reason, fault.field) == (reason, field), str(fault)
    assert re.search(re.escape(remedy), fault.remedy + fault.message), str(fault)


OWN = "submit_s,duration_s,name,tasks,chip,devices,cpu,memory,priority,tier\n"


@pytest.mark.parametrize(
    ("text", "reason", "field"),
    [
        ("a,b\n1,2\n", "UNKNOWN_TRACE", "TRACE"),
        ("", "UNKNOWN_TRACE", "TRACE"),
        (OWN + "0,60,a\n", "ROW_LENGTH", "line 2"),
        (OWN + "0,60,a,1,L4,1,1,1GB,50,spot\nx,60,b,1,L4,1,1,1GB,50,spot\n", "BAD_SECONDS",
         "line 3, submit_s"),
        (OWN + "0,-5,a,1,L4,1,1,1GB,50,spot\n", "BAD_SECONDS", "line 2, duration_s"),
        (OWN + "0,60,a,0,L4,1,1,1GB,50,spot\n", "BAD_NUMBER", "line 2, tasks"),
        (OWN + "0,60,a,1,L44,1,1,1GB,50,spot\n", "UNKNOWN_CHIP", "line 2, chip"),
        (OWN + "0,60,a,1,L4,some,1,1GB,50,spot\n", "BAD_NUMBER", "line 2, devices"),
        (OWN + "0,60,a,1,L4,1,few,1GB,50,spot\n", "BAD_CPU", "line 2, cpu"),
        (OWN + "0,60,a,1,L4,1,1,huge,50,spot\n", "BAD_SIZE", "line 2, memory"),
        (OWN + "0,60,a,1,L4,1,1,1GB,500,spot\n", "BAD_NUMBER", "line 2, priority"),
        (OWN + "0,60,a,1,L4,1,1,1GB,50,cheap\n", "UNKNOWN_TIER", "line 2, tier"),
        (OWN + 2 * "0,60,a,1,L4,1,1,1GB,50,spot\n", "NAMED_TWICE", "name"),
        ("submit_s,duration_s,colour\n0,60,red\n", "UNKNOWN_COLUMN", "line 1, colour"),
        ("submit_time,gpus,virtual_cluster\n2017-10-09 06:13:03,1,a\n", "COLUMN_MISSING", "TRACE"),
        ("submit_time,duration_s,gpus,virtual_cluster\nnoon,1,1,a\n", "BAD_TIME",
         "line 2, submit_time"),
        ("name,num_gpu,gpu_milli,cpu_milli,memory_mib\np,1,500,1,1\n", "COLUMN_MISSING", "TRACE"),
        (GAVEL, "THROUGHPUTS_MISSING", "--throughputs"),
    ],
)  # fmt: skip
def test_mistakes_in_a_trace(text, reason, field):
    with pytest.raises(Invalid) as caught:
        read_trace(text, clusterfile.parse(TWO_L4))
    fault = caught.value
    assert (fault.reason, fault.field) == (reason, field), str(fault)
    assert fault.remedy


@pytest.mark.parametrize(
    ("add", "remove", "reason"),
    [
        (["H100"], [], "BAD_CHANGE"), (["2 x H1000:8"], [], "UNKNOWN_CHIP"),
        (["0 x H100:8"], [], "BAD_NUMBER"), (["1 x H100:8@moon"], [], "UNKNOWN_SITE"),
        ([], ["all"], "BAD_CHANGE"), ([], ["1 x l5"], "UNKNOWN_GROUP"),
        ([], ["9 x l4"], "NOT_SO_MANY"), (["1 x H100:0"], [], "BAD_NUMBER"),
    ],
)  # fmt: skip
def test_mistakes_in_changes(add, remove, reason):
    with pytest.raises(Invalid) as caught:
        changed(clusterfile.parse(clusterfile.EXAMPLE), add, remove)
    assert caught.value.reason == reason
    assert caught.value.remedy


def test_files_that_are_not_there_or_not_text(tmp_path):
    known = catalogue.load()
    with pytest.raises(Missing):
        clusterfile.load(tmp_path / "none.toml")
    with pytest.raises(Missing):
        traces.load(tmp_path / "none.csv", traces.Reading(known, 8))
    with pytest.raises(Missing):
        spot.load(tmp_path / "none.csv", known)
    for name, content in (("a.csv", b"\xff\xfe\x00"), ("b.csv.gz", b"\x1f\x8bbroken")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(Invalid) as caught:
            traces.load(path, traces.Reading(known, 8))
        assert caught.value.reason == "NOT_CSV"
    binary = tmp_path / "c.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid):
        clusterfile.load(binary)
    empty = tmp_path / "e.csv"
    empty.write_text("submit_s,duration_s\n")
    with pytest.raises(Invalid) as caught:
        traces.load(empty, traces.Reading(known, 8))
    assert caught.value.reason == "NO_JOBS"
