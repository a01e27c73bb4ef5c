"""Finds in Python source what would run code from data, open a door, or trust a stranger."""

import ast

MODULES = frozenset(
    {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle", "telnetlib"}
)
CALLS = frozenset(
    {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput", "tempfile.mktemp",
     "subprocess.getstatusoutput", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "torch.hub.load",
     "pandas.read_pickle", "numpy.loads", "shutil.unpack_archive", "jinja2.Template", "asyncio.create_subprocess_shell"}
)  # fmt: skip
NEEDS = {
    "torch.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
    "jinja2.Environment": ("autoescape", True),
}
"""What calls must say."""
MAY_ONLY_BE = {
    "allow_pickle": False,
    "weights_only": True,
    "trust_remote_code": False,
    "shell": False,
    "autoescape": True,
}
"""Arguments of whatever call."""
OPEN_TO_ALL = ("0.0.0.0", "[::]")  # noqa: S104  what is looked for
MAY_BE_IMPORTED = frozenset({"pickle.UnpicklingError"})  # torch's refusal, to be recognised: it unpickles nothing


def dangers(source: str) -> list[str]:
    """Lines of a module that must not be, each with what is wrong there."""
    tree = ast.parse(source)
    names = _names(tree)
    found: list[str] = []
    for node in ast.walk(tree):
        for what in _wrong(node, names):
            found.append(f"line {getattr(node, 'lineno', 0)}: {what}")
    return found


def _wrong(node: ast.AST, names: dict[str, str]) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        case ast.ImportFrom():
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
            return [name for name in imported if name.split(".")[0] in MODULES and name not in MAY_BE_IMPORTED]
        case ast.Call():
            return _wrong_call(_dotted(node.func, names), {keyword.arg: keyword.value for keyword in node.keywords})
        case ast.Attribute() if node.attr in MODULES:
            return [f"{node.attr} by way of another module"]
        case ast.Constant() if isinstance(node.value, str):
            return [text for text in OPEN_TO_ALL if text in node.value]
        case _:
            return []


def _wrong_call(name: str, given: dict[str | None, ast.expr]) -> list[str]:
    found = [name] if name in CALLS else []
    if name in NEEDS and NEEDS[name][0] not in given:
        found.append(f"{name} without {NEEDS[name][0]}={NEEDS[name][1]}")
    for argument, value in given.items():
        if argument in MAY_ONLY_BE and not (isinstance(value, ast.Constant) and value.value is MAY_ONLY_BE[argument]):
            found.append(f"{argument}={ast.unparse(value)}")
    return found


def _names(tree: ast.Module) -> dict[str, str]:
    """What names of a module stand for: ``np`` for ``numpy``, ``load`` for ``torch.load``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                      for alias in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return "?"
