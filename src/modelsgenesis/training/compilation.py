"""Whether to compile a network, and what it says that this failed."""

from modelsgenesis.configs import TrainingConfig
from modelsgenesis.errors import ConfigurationError, GenesisError, gpu_trouble
from modelsgenesis.files import reason_of
from modelsgenesis.hardware import Hardware, check_compiler, lacks_memory
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
    # Of several processes, one alone might fail to compile, and the others would wait for it.
    is_able = hardware.device.type == "cuda" and not config.checkpoint_activations and distributed.world_size() == 1
    # Measured for 19 million weights: 8 of 22 ms a step at batch 6, after half a minute of compiling. A small network
    # is bound by the launches of its kernels, of which there are fewer then.
    saved = 0.003 + 0.044e-9 * weights * config.batch_size  # seconds a step
    if not config.compile or (config.compile == "auto" and not (is_able and steps * saved >= _WORTH)):
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


def compiler_failure(error: Exception) -> str:
    """Return why the first call of what was compiled failed; raise what is no fault of the compiler."""
    cause = getattr(error, "inner_exception", error)
    if isinstance(cause, GenesisError) or lacks_memory(cause) or gpu_trouble(cause):
        raise cause
    return reason_of(cause)
