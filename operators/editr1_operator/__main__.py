"""Run the operator with ``python -m editr1_operator``.

The operator is configured with environment variables, which :class:`Options` lists.
"""

from __future__ import annotations

import logging

import kopf

from editr1.telemetry.log import configure_logging, requested_format
from editr1_operator.handlers import Handlers
from editr1_operator.options import Options
from editr1_operator.probes import Probes

log = logging.getLogger("editr1.operator")


def main() -> None:
    """Run the operator until it receives SIGTERM."""
    options = Options()
    configure_logging(requested_format())
    logging.getLogger("kopf").setLevel(options.kopf_level)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    namespaces = options.namespace_list()
    log.info("watching %s", f"namespaces {', '.join(namespaces)}" if namespaces else "all namespaces")
    probes = Probes()
    probes.serve(options.liveness_port)
    kopf.run(
        registry=Handlers(options, probes).registry(),
        clusterwide=not namespaces,
        namespaces=namespaces,
        standalone=True,
    )


if __name__ == "__main__":
    main()
