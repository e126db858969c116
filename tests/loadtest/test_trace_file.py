import pytest
from erg_loadtest.errors import PlanError
from erg_loadtest.trace_file import read_trace
from hypothesis import given
from hypothesis import strategies as st

SECOND = 1_000_000_000


def read(tmp_path, text, **options):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return read_trace(path, **options)


def test_seconds_count_from_the_first_request(tmp_path):
    assert read(tmp_path, "time_s\n10\n10.5\n12\n").offsets_ns == (0, SECOND // 2, 2 * SECOND)


def test_other_columns_are_left_alone_and_headers_may_be_named_otherwise(tmp_path):
    assert read(tmp_path, 'id,Timestamp\n"a,b",0\nc,1\n\n').offsets_ns == (0, SECOND)


def test_only_the_loaded_model_s_lines_are_replayed(tmp_path):
    text = "time_s,model,rows\n0,other,1\n2,mine,1\n3,mine,4\n"
    assert read(tmp_path, text, model="mine").offsets_ns == (0, SECOND)
    with pytest.raises(PlanError, match="no line is of model 'third'; the file has mine, other"):
        read(tmp_path, text, model="third")


def test_intervals_in_microseconds_add_up_and_the_first_is_waited_for(tmp_path):
    assert read(tmp_path, "1000\n500\n0\n").offsets_ns == (1_000_000, 1_500_000, 1_500_000)


def test_a_replay_at_twice_the_speed_takes_half_the_time(tmp_path):
    replay = read(tmp_path, "time_s\n0\n4\n", speed=2.0)
    assert replay.offsets_ns == (0, 2 * SECOND)
    assert (replay.speed, replay.source) == (2.0, "trace.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("when\n1\n", r"trace\.csv:1: neither a CSV header with a column time_s .* found 'when'"),
        ("time_s\n", "a header but no request"),
        ("time_s\n1\nx\n", r"trace\.csv:3: 'x' is not a number of seconds"),
        ("time_s\n1\nnan\n", r"trace\.csv:3: 'nan' is not a number"),
        ("time_s\n1\n\n0.5\n", r"trace\.csv:4: 0\.5 s is before .* sort the file"),
        ("time_s,a\n1\n", r"trace\.csv:2: 1 columns where the header has 2"),
        ('time_s\n"1\n', r"trace\.csv:2: not a line of CSV"),
        ("time_s\n0\n1700000000\n", "are these milliseconds"),
        ("100\n1.5\n", r"trace\.csv:2: '1\.5' is not a whole number of microseconds"),
        ("100\n-5\n", r"trace\.csv:2: '-5'"),
        ("1" * 5000, "an interval of more than a year"),
    ],
)
def test_what_cannot_be_read_is_refused_by_line_with_the_fix(tmp_path, text, message):
    with pytest.raises(PlanError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_impossible_speeds_are_refused(tmp_path, speed):
    with pytest.raises(PlanError, match="replay speed"):
        read(tmp_path, "time_s\n0\n", speed=speed)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match=r"trace\.csv"):
        read_trace(path)


@given(text=st.text())
def test_any_text_is_a_replay_in_order_or_a_typed_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("traces") / "t"
    path.write_text(text)
    try:
        replay = read_trace(path)
    except PlanError:
        return
    assert list(replay.offsets_ns) == sorted(replay.offsets_ns)


@given(times_s=st.lists(st.floats(0, 1e6), min_size=1).map(sorted), speed=st.floats(0.01, 100))
def test_written_times_are_read_back(tmp_path_factory, times_s, speed):
    path = tmp_path_factory.mktemp("traces") / "t.csv"
    path.write_text("time_s\n" + "\n".join(map(repr, times_s)))
    due = read_trace(path, speed=speed).offsets_ns
    assert due == tuple(round((time_s - times_s[0]) / speed * SECOND) for time_s in times_s)
