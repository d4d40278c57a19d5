#!/bin/sh
# compile.sh [FOLDER]: compile the C files beside this script to FOLDER/libkernels-avx2.so and
# FOLDER/libkernels-avx512.so. FOLDER is the script's own by default. Without a C compiler, or on a
# processor other than x86-64, it prints a message and leaves neither file.
set -u
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here}
compile() {
  out=$folder/libkernels-$1.so
  shift
  ${CC:-cc} -O3 "$@" -mfma -Wall -Wextra -shared -fPIC -o "$out.part" \
    "$here"/*.c -lm && mv "$out.part" "$out"
}
if ! { compile avx2 -mavx2 && compile avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl; }; then
  rm -f "$folder"/libkernels*.so "$folder"/libkernels*.so.part
  echo "not compiled: on a CPU the network will take twice as long" >&2
fi
