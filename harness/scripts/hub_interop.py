"""The other side of a shared cache: what the real huggingface_hub does with it.

The test `python_and_this_program_share_a_cache` runs this against its own server. By hand:

    HF_ENDPOINT=... HF_HOME=... python hub_interop.py read ORG/REPO config.json model.safetensors

needs: pip install huggingface_hub
"""

import argparse
import hashlib
import os
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["version", "fetch", "read", "verify"])
    parser.add_argument("repository")
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    # Plain HTTP, as the test's server speaks it; read when the package is imported.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    if args.action == "read":
        os.environ["HF_HUB_OFFLINE"] = "1"
    import huggingface_hub as hub

    if args.action == "version":
        print(f"huggingface_hub {hub.__version__}")
    elif args.action == "fetch":
        for name in args.files:
            hub.hf_hub_download(args.repository, name)
    elif args.action == "read":
        folder = hub.snapshot_download(args.repository, local_files_only=True)
        for name in args.files:
            path = hub.hf_hub_download(args.repository, name, local_files_only=True)
            if not os.path.samefile(path, os.path.join(folder, name)):
                sys.exit(f"{path} is not in {folder}")
            with open(path, "rb") as file:
                print(hashlib.file_digest(file, "sha256").hexdigest(), name)
    else:
        found = hub.HfApi().verify_repo_checksums(args.repository)
        print(found)
        if found.mismatches or found.checked_count < len(args.files):
            sys.exit("the cache is not what the hub has")


if __name__ == "__main__":
    main()
