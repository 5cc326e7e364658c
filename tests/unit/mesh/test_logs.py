"""Log lines are JSON, and say which trace they belong to."""

import io
import json
import logging

from gridlease_mesh import logs, trace


def test_a_line_is_json_with_its_trace_and_extras():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines("billing"))
    logger = logging.getLogger("test_logs")
    logger.addHandler(handler)
    context = trace.new_trace()
    try:
        with trace.use(context):
            logger.warning("hällo %s", "x", extra={"lease": "ls-1"})
        try:
            raise RuntimeError("boom")
        except RuntimeError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["level"], first["service"]) == ("hällo x", "warning", "billing")
    assert (first["lease"], first["trace_id"]) == ("ls-1", context.trace_id)
    assert "trace_id" not in second
    assert "boom" in second["exception"]
