"""Tables of one name from different kernels: columns may be missing here and of another type there."""

import pyarrow as pa
import pyarrow.compute as pc


def concatenated(parts: list[pa.Table]) -> pa.Table:
    """Return the rows of `parts` in one table with all their columns; a missing one is null.

    Integers widen. A column whose types do not go together becomes text, as the queries' union of files has it.
    """
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        kinds: dict[str, set[pa.DataType]] = {}
        for part in parts:
            for item in part.schema:
                kinds.setdefault(item.name, set()).add(item.type)
        odd = {name for name, found in kinds.items() if len(found) > 1 and not _widen(found)}
        return pa.concat_tables([_as_text(part, odd) for part in parts], promote_options="permissive")


def _widen(found: set[pa.DataType]) -> bool:
    try:
        pa.unify_schemas([pa.schema([pa.field("x", kind)]) for kind in found], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def _as_text(part: pa.Table, odd: set[str]) -> pa.Table:
    for name in odd & set(part.column_names):
        column = part[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_nested(column.type):
            column = pa.chunked_array([pa.array([str(value) for value in column.to_pylist()], pa.string())])
        elif pa.types.is_binary(column.type):
            column = pa.chunked_array([pa.array([value.hex() for value in column.to_pylist()], pa.string())])
        part = part.set_column(part.column_names.index(name), name, pc.cast(column, pa.string()))
    return part
