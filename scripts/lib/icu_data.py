"""A small libicudata: ICU's data library is 30 MiB, nearly all of it locales and converters, of which Chorale reads none."""
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# What coordinator/text may ask for: normal forms, and properties of characters that are not compiled into libicuuc.
ITEMS = ("nfkc.nrm", "nfkc_cf.nrm", "uts46.nrm", "uemoji.icu", "ulayout.icu")


def data_of(library):
    """(name of the symbol, its bytes) of the data package inside libicudata."""
    symbols = subprocess.run(["readelf", "-sW", "--dyn-syms", library], capture_output=True, text=True, check=True).stdout
    match = re.search(r"([0-9a-f]{16})\s+(0x[0-9a-f]+|\d+)\s+OBJECT\s+GLOBAL\s+DEFAULT\s+\d+\s+(icudt\d+)_dat", symbols)
    segments = subprocess.run(["readelf", "-lW", library], capture_output=True, text=True, check=True).stdout
    loads = [tuple(int(v, 16) for v in m) for m in re.findall(r"LOAD\s+(0x[0-9a-f]+)\s+(0x[0-9a-f]+)\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)", segments)]
    if match is None or not loads:
        return None, b""
    address, size = int(match.group(1), 16), int(match.group(2), 0)
    for offset, start, length in loads:
        if start <= address and address + size <= start + length:
            with open(library, "rb") as file:
                file.seek(offset + address - start)
                return match.group(3), file.read(size)
    return None, b""


def shrink(library, soname):
    """Rewrites the library with ITEMS only. False where the tools of icu-devtools are missing or do not know this file: it stays whole."""
    if not all(map(shutil.which, ("icupkg", "genccode", "g++"))):
        return False
    name, data = data_of(library)
    if name is None:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole, small = folder / f"{name}l.dat", folder / "small" / f"{name}l.dat"
        small.parent.mkdir()
        whole.write_bytes(data)
        keep = folder / "keep.txt"
        keep.write_text("\n".join(ITEMS) + "\n")
        made = folder / "libicudata.so"
        for command in (["icupkg", "-x", keep, "-d", folder, whole], ["icupkg", "-tl", "-s", folder, "-a", keep, "new", small],
                        ["genccode", "-q", "-a", "gcc", "-e", name, "-d", small.parent, small],
                        ["g++", "-shared", "-nostdlib", f"-Wl,-soname,{soname}", "-o", made, small.with_name(f"{name}l_dat.S")]):
            if subprocess.run(list(map(str, command)), capture_output=True, check=False).returncode != 0:
                return False
        shutil.copyfile(made, library)
    return True
