#!/bin/sh
# compile.sh [FOLDER]: compile what lies beside this to FOLDER/libkernels.so; by default beside it.
# Without a C compiler, or for another processor than x86-64, it says so and leaves nothing.
set -u
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}/libkernels.so
if ! ${CC:-cc} -O3 -mavx2 -mfma -Wall -Wextra -shared -fPIC \
  -o "$out.part" "$here/attention.c" "$here/im2col.c" "$here/winograd.c" -lm; then
  rm -f "$out" "$out.part"
  echo "not compiled: on a CPU the network will take twice as long" >&2
  exit 0
fi
mv "$out.part" "$out"
