"""How an index of approximate neighbours codes vectors. Nothing is imported here, so that the command line may."""

from enum import StrEnum


class AnnKind(StrEnum):
    """How an index codes a vector of D dimensions, in bytes: D/8, D, D/16, and D with a graph."""

    BINARY = "binary"
    INT8 = "int8"
    PQ = "pq"
    HNSW = "hnsw"
