"""ComfyUI as the nodes need it. Only this room, and the nodes' schemas, import ComfyUI."""

from .advice import (
    COMBINE,
    COMPARE,
    CONVERT,
    EXTRACT,
    HOOK,
    INSPECT,
    LOAD,
    LOAD_ROWS,
    MERGE_FILE,
    MERGE_MODEL,
    RESIZE,
    TRY_FILES,
    acting,
)
from .files import NONE, fingerprint
from .grid import labelled_grid
from .jobs.approximating import extract, limits, resize
from .jobs.combining import AS_IT_IS, COMBINE_METHODS, combination, combine
from .jobs.comparing import compare
from .jobs.converting import conversion, convert
from .jobs.merging import QUANTIZED_FORMS, adapter_list, merge_files, merge_options
from .jobs.model_files import checkpoint_fingerprint, checkpoint_names
from .model.beside import MODES
from .model.hooks import Request, hooked
from .model.loading import inspect, load_onto
from .model.lora_model import LORA, adapters_of, adapters_to_load, lora_model_of
from .model.lora_stack import rows_of_stack, stack_of
from .model.many import Row, load_rows
from .model.merging import merge_onto
from .model.one_training import FILES, files_to_try
from .model.schedule import Schedule
from .model.trying import strengths_of, try_all
from .page.match import match_ui
from .schema import (
    adapter_input,
    construct,
    first_rows,
    lora_input,
    lora_inputs_beside_rows,
    lora_output,
    mode_input,
    more_rows,
    new_file_outputs,
    overwrite_input,
    partial_input,
    row_inputs,
    rows_of,
    search_aliases,
    selection,
    selection_inputs,
    smallness_inputs,
    strength_input,
)

__all__ = [
    "AS_IT_IS",
    "COMBINE",
    "COMBINE_METHODS",
    "COMPARE",
    "CONVERT",
    "EXTRACT",
    "FILES",
    "HOOK",
    "INSPECT",
    "LOAD",
    "LOAD_ROWS",
    "LORA",
    "MERGE_FILE",
    "MERGE_MODEL",
    "MODES",
    "NONE",
    "QUANTIZED_FORMS",
    "RESIZE",
    "TRY_FILES",
    "Request",
    "Row",
    "Schedule",
    "acting",
    "adapter_input",
    "adapter_list",
    "adapters_of",
    "adapters_to_load",
    "checkpoint_fingerprint",
    "checkpoint_names",
    "combination",
    "combine",
    "compare",
    "construct",
    "conversion",
    "convert",
    "extract",
    "files_to_try",
    "fingerprint",
    "first_rows",
    "hooked",
    "inspect",
    "labelled_grid",
    "limits",
    "load_onto",
    "load_rows",
    "lora_input",
    "lora_inputs_beside_rows",
    "lora_model_of",
    "lora_output",
    "match_ui",
    "merge_files",
    "merge_onto",
    "merge_options",
    "mode_input",
    "more_rows",
    "new_file_outputs",
    "overwrite_input",
    "partial_input",
    "resize",
    "row_inputs",
    "rows_of",
    "rows_of_stack",
    "search_aliases",
    "selection",
    "selection_inputs",
    "smallness_inputs",
    "stack_of",
    "strength_input",
    "strengths_of",
    "try_all",
]
