"""How the images of a labelled data set are prepared, where no checkpoint says it."""

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data.labelled.cases import LabelledData
from modelsgenesis.errors import DataError


def data_contract(data: LabelledData) -> InputContract:
    """Return the default contract of a data set's modality, with its dimensions and channels.

    Raises:
        DataError: The modality is not known.

    Example:
        data_contract(read_labelled("Task04_Hippocampus")).intensity  # 'percentiles'
    """
    if data.modality not in CONTRACTS:
        raise DataError(
            f"{data.name}: its modality cannot be told; say which with --modality: {', '.join(sorted(CONTRACTS))}"
        )
    contract = CONTRACTS[data.modality]
    return contract.override(dims=data.dims, orientation="RAS" if data.dims == 3 else None, channels=data.channels)
