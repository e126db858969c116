import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from erg_loadtest.errors import PlanError, ServerError
from erg_loadtest.server_cpu import CpuSeconds, MetricsCpuMeter, ProcessTreeCpuMeter


@pytest.fixture
def metrics():
    """A function that serves one text as /metrics and returns its URL."""
    servers = []

    def serve(text):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = text.encode()
                self.send_response(200 if self.path == "/metrics" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_metrics_are_added_up_by_process_role(metrics):
    url = metrics(
        "# TYPE erg_process_cpu_seconds counter\n"
        'erg_process_cpu_seconds_total{process="front"} 1.5\n'
        'erg_process_cpu_seconds_total{process="worker",worker="0"} 2\n'
        'erg_process_cpu_seconds_total{process="worker",worker="1"} 3\n'
    )
    assert MetricsCpuMeter(url).read() == CpuSeconds(front=1.5, by_worker={"0": 2.0, "1": 3.0})


def test_a_server_without_the_metric_says_so(metrics):
    with pytest.raises(ServerError, match="has no erg_process_cpu_seconds_total"):
        MetricsCpuMeter(metrics("other 1\n")).read()


def test_an_error_page_is_not_a_figure(metrics):
    with pytest.raises(ServerError, match="status 404"):
        MetricsCpuMeter(metrics("") + "/elsewhere").read()


def test_an_unreachable_server_says_where():
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:1"):
        MetricsCpuMeter("127.0.0.1:1").read()


def test_only_plain_http_is_read():
    with pytest.raises(PlanError, match="http"):
        MetricsCpuMeter("file:///etc/passwd")


def test_any_process_of_this_machine_can_be_measured():
    assert ProcessTreeCpuMeter(os.getpid()).read().front > 0


def test_a_worker_that_restarted_makes_its_time_unknown_instead_of_wrong():
    before = CpuSeconds(front=1.0, by_worker={"0": 5.0})
    for after in ({"0": 1.0}, {"1": 9.0}, {}):
        assert "went back" in str(CpuSeconds(front=2.0, by_worker=after).since(before))


def test_a_worker_that_started_meanwhile_counts_from_its_start():
    before = CpuSeconds(front=1.0, by_worker={"0": 5.0})
    after = CpuSeconds(front=2.0, by_worker={"0": 6.0, "1": 0.5})
    assert after.since(before) == CpuSeconds(front=1.0, by_worker={"0": 1.0, "1": 0.5})


def test_a_server_without_workers_can_be_measured():
    spent = CpuSeconds(front=3.0, by_worker={}).since(CpuSeconds(front=1.0, by_worker={}))
    assert spent == CpuSeconds(front=2.0, by_worker={})
