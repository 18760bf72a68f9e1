"""Whether to compile a network."""

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import ConfigurationError
from modelsgenesis.hardware import Hardware, check_compiler
from modelsgenesis.reporting import Reporter
from modelsgenesis.training import distributed

_WORTH = 60  # seconds that compiling has to save: twice what it takes


def is_to_compile(config: TrainingConfig, hardware: Hardware, weights: int, steps: int, reporter: Reporter) -> bool:
    """Return whether to compile: on request, or by itself on CUDA, where it pays and there is a compiler.

    Args:
        config: What was asked for.
        hardware: Where the network computes.
        weights: Its parameters.
        steps: Steps that are left.
        reporter: Receives what was chosen, where that is not plain.

    Raises:
        ConfigurationError: It was asked for, and there is no compiler.
    """
    if config.compile == "auto":
        # Of several processes, one alone might fail to compile, and the others would wait for it.
        if hardware.device.type != "cuda" or config.checkpoint_activations or distributed.world_size() > 1:
            return False
        # Measured for 19 million weights: 8 of 22 ms a step at batch 6, after half a minute of compiling. A small
        # network is bound by the launches of its kernels, of which there are fewer then.
        saved = 0.003 + 0.044e-9 * weights * config.batch_size  # seconds a step
        if steps * saved < _WORTH:
            return False
    if not config.compile:
        return False
    try:
        check_compiler(hardware.device)
    except ConfigurationError as error:
        if config.compile is True:
            raise
        reporter.note(f"{error}; going on without")
        return False
    reporter.note("compile: on; the first step takes half a minute longer, compile=false does without")
    return True
