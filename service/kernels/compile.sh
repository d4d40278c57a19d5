#!/bin/sh
# compile.sh [FOLDER]: compile what lies beside this to FOLDER/libkernels-avx2.so and -avx512.so; by
# default beside it. Without a C compiler, or for another processor than x86-64, it says so and
# leaves neither.
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
