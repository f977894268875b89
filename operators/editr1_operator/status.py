from editr1.runs.kubernetes.run_status import *  # noqa
from editr1.runs.kubernetes.run_status import _Status  # noqa
