"""The simulator worker of pixio-eval: robot simulators behind a pipe.

`python -m pixio_simulators` answers requests for resets, steps and images of the fourteen tasks of
CortexBench. `wire` holds the frames, `worker` the requests, `suites` one module per simulator,
`rendering` the images of those that MuJoCo draws.
"""

PROTOCOL = 1
