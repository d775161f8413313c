"""Write the parts of the public headers between their CFFI marks: what cffi's ABI mode reads."""

import sys
from pathlib import Path

*headers, output = map(Path, sys.argv[1:])
texts = [header.read_text(encoding="utf-8").split("/* CFFI BEGIN */")[1] for header in headers]
output.write_text("\n".join(text.split("/* CFFI END */")[0].strip() + "\n" for text in texts), encoding="utf-8")
