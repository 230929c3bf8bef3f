#!/usr/bin/env bash
# Builds the emulated GPU: harness/cuda/emulator/build.sh FOLDER
#
# Needs a C++17 compiler, the headers of a CUDA toolkit in $CUDA_HOME/include (12.0 or newer), and candle's kernels,
# which cargo has fetched. Puts libraries of CUDA's names into FOLDER, for LD_LIBRARY_PATH.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1"
out="$(cd "$1" && pwd)"
cd "$(dirname "$0")"
: "${CUDA_HOME:?set it to the folder of the CUDA toolkit, whose include/cuda.h is read}"
[ -e "$CUDA_HOME/include/cuda.h" ] || { echo "no $CUDA_HOME/include/cuda.h" >&2; exit 2; }
candle="$(cargo metadata --locked --format-version 1 --features cuda |
    python3 -c 'import json, os, sys
for p in json.load(sys.stdin)["packages"]:
    if p["name"] == "candle-kernels": print(os.path.dirname(p["manifest_path"]))')"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# As nvcc, which reads four numbers of one type as one of another; every product is rounded before it is added.
cxx=("${CXX:-c++}" -std=c++17 -O2 -march=native -ffp-contract=off -fno-strict-aliasing -fPIC -fvisibility=hidden -U_FORTIFY_SOURCE -w)
# What candle's kernels ask of nvcc.
nvcc=(-D__CUDA_ARCH__=800 -D__CUDACC_VER_MAJOR__=13 -D__CUDACC_VER_MINOR__=0)

# Each file of kernels with a line for each of its kernels behind it.
names() { "${cxx[@]}" -E -P "$@" | tr '\n' ' ' | grep -oE "$pattern" | grep -oE '[a-z0-9_]+$' | sort -u; }
pattern='extern "C" const char ?\* ?[a-z0-9_]+'
for source in ../../ops/kernels/*.cu; do
    name="$(basename "$source" .cu)"
    [ "$name" = emulation ] && continue
    {
        echo "#include \"$PWD/kernels.h\""
        echo "#include \"$PWD/$source\""
        names -x c++ "$source" | while read -r kernel; do
            echo "static gpu::Registered of_$kernel(true, \"$kernel\", ${kernel}_kernel, $kernel);"
        done
    } >"$work/$name.cpp"
done
pattern='extern "C" __global__ +void +[a-z0-9_]+'
for name in affine binary cast fill indexing reduce ternary unary; do
    {
        echo "#include <cassert>"
        echo "#include \"$PWD/candle/launch.h\""
        echo "#include \"$candle/src/$name.cu\""
        names "${nvcc[@]}" -x c++ -Icandle -I"$candle/src" "$candle/src/$name.cu" | while read -r kernel; do
            echo "static gpu::Registered of_$kernel(false, \"$kernel\", $kernel, gpu::Launch<$kernel>::run);"
        done
    } >"$work/candle_$name.cpp"
done
# Names of one file's functions are nothing to another's: each is a library of its own.
here="$PWD"
library=libemulated_gpu.so
mkdir -p "$out/kernels"
rm -f "$out"/kernels/*
parallel() { xargs -P "$(nproc)" -I{} "$@"; }
(cd "$work" && ls ./*.cpp) >"$work/kernels"
ls ./*.cpp | parallel "${cxx[@]}" -I"$CUDA_HOME/include" -c {} -o "$work/{}.o"
parallel "${cxx[@]}" "${nvcc[@]}" -shared -I"$here" -I"$here/candle" -I"$candle/src" "$work/{}" -o "$out/kernels/{}.so" <"$work/kernels"

# Every other function says that it is not there.
"${cxx[@]}" -shared -o "$work/known.so" "$work"/*.cpp.o
nm -D --defined-only "$work/known.so" | awk '{ print $3 }' | sort >"$work/known"
cat ../symbols/*.txt | tr ' ' '\n' | sort -u | comm -23 - "$work/known" | {
    echo '#include <cstdio>'
    echo '#include <cstdlib>'
    echo 'static void no(const char* f) { std::fprintf(stderr, "emulated GPU: %s is not emulated\n", f); std::abort(); }'
    while read -r name; do
        [ -z "$name" ] || echo "extern \"C\" __attribute__((visibility(\"default\"))) int $name() { no(\"$name\"); return 1; }"
    done
} >"$work/others.cpp"
"${cxx[@]}" -c "$work/others.cpp" -o "$work/others.cpp.o"
"${cxx[@]}" -shared -Wl,-soname,"$library" -o "$out/$library" "$work"/*.cpp.o -ldl
major="$(grep -oE '#define CUDA_VERSION [0-9]+' "$CUDA_HOME/include/cuda.h" | grep -oE '[0-9]+$')"
major=$((major / 1000))
for name in "cuda.so.1" "cudart.so.$major" "cublas.so.$major" "cublasLt.so.$major" "curand.so.10" "nvrtc.so.$major" "cudnn.so.9"; do
    ln -sf "$library" "$out/lib$name"
done
echo "LD_LIBRARY_PATH=$out"
