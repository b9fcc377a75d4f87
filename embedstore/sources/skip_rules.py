"""Which names in a folder are not embedded: litter of systems and programs, hidden names, files of other kinds."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from embedstore.modality import Modality
from embedstore.sources.companions import RawPairs
from embedstore.sources.parts.options import PartOptions

# Folders that network drives, systems and programs make next to photos: previews, trash, snapshots. In lower case.
LITTER_FOLDERS = frozenset({
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", ".@__thumb", "#recycle", "#snapshot", ".snapshot", ".snapshots",
    "$recycle.bin", "system volume information", "found.000", "lost+found", "__macosx",
    ".spotlight-v100", ".fseventsd", ".temporaryitems", ".trashes", ".documentrevisions-v100", ".trash", ".dtrash",
    ".thumbnails", ".thumbs", ".picasaoriginals", ".ipynb_checkpoints", "__pycache__", ".git", ".svn", ".hg",
})  # fmt: skip
LITTER_FOLDER_PREFIXES = (".trash-",)  # of the user with this number
LITTER_FILES = frozenset({
    ".ds_store", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", ".picasa.ini", "picasa.ini",
    ".localized", ".nomedia", "photothumb.db", "zbthumbnail.info",
})  # fmt: skip
APPLE_DOUBLE_PREFIX = "._"  # macOS keeps a file's attributes in such a companion on other file systems

# Files that lie next to photos and that no image decoder reads. A file with any other suffix is tried.
OTHER_KINDS = frozenset(
    (
        ".txt .md .rst .rtf .doc .docx .xls .xlsx .ppt .pptx .odt .ods .odp .pdf .tex .htm .html .css .url .lnk "
        ".csv .tsv .json .jsonl .ndjson .xml .yaml .yml .toml .ini .cfg .log .db .sqlite .parquet .pq .arrow .feather "
        ".xmp .aae .thm .dop .pp3 .on1 .cos .lrcat .lrdata .sha1 .sha256 .md5 .sum .srt .gpx .kml "
        ".mp4 .mov .m4v .avi .mkv .wmv .mpg .mpeg .3gp .mts .m2ts .webm .flv .mp3 .m4a .wav .flac .ogg .aac .wma "
        ".zip .cbz .tar .gz .tgz .bz2 .tbz .tbz2 .xz .txz .zst .tzst .7z .rar .iso .dmg .exe .dll .so .msi .apk "
        ".py .ipynb .js .ts .sh .bat .r .m .c .cpp .h .java .pyc .lock .part .crdownload .tmp .bak .torrent "
        ".npy .npz .pt .pth .ckpt .safetensors .onnx .h5 .hdf5 .mat .pkl .pickle .idx .lst .rec .tfrecord"
    ).split()
)
# Files without a suffix that come with a collection, in lower case; any other without one is tried.
OTHER_NAMES = frozenset(
    (
        "readme license licence copying copyright notice authors contributors credits citation changelog changes "
        "history news version todo install manifest contents makefile dockerfile "
        "checksums md5sums sha1sums sha256sums sha512sums"
    ).split()
)
TEXT_SUFFIXES = frozenset((".txt", ".md", ".rst", ".text"))
SOUND_SUFFIXES = frozenset(".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .au .snd .caf .w64".split())
OWN_KINDS = {Modality.TEXT: TEXT_SUFFIXES, Modality.AUDIO: SOUND_SUFFIXES}  # what folders hold for these modalities
NO_SUFFIX = "without suffix"  # how such files are counted
HIDDEN = "hidden"  # how hidden names are counted
_MAX_NAMED_KINDS = 8  # kinds that a summary names


@dataclass(frozen=True)
class SkipRules:
    """What a walk through a folder leaves out.

    Attributes:
        exclude: patterns of the user: ``*`` and ``?`` as in a shell. One without ``/`` is compared with the names of
            files and folders, any other with paths relative to the folder that is walked.
        hidden: embed hidden files and folders too, whose names begin with a dot.
        other_kinds: try files of other kinds than the modality's.
        named: names that the user wrote himself, which are never skipped.
        parts: which PDF files and videos are embedded by their pages and frames.
        raw_pairs: what is embedded of a RAW file and a JPEG or HEIC file of the same name.
        modality: what the space embeds.
    """

    exclude: tuple[str, ...] = ()
    hidden: bool = False
    other_kinds: bool = False
    named: frozenset[str] = frozenset()
    parts: PartOptions = field(default_factory=PartOptions)
    raw_pairs: RawPairs = RawPairs.PHOTO
    modality: Modality = Modality.IMAGE

    @property
    def are_plain(self) -> bool:
        """Whether the user stated no rule."""
        return replace(self, modality=Modality.IMAGE) == SkipRules()

    def kind_of_folder(self, name: str, below: str) -> str | None:
        """Return how a folder is counted that is not entered, None for one that is.

        Args:
            name: its name.
            below: its path, relative to the folder that is walked.
        """
        if name in self.named:
            return None
        if name.lower() in LITTER_FOLDERS or name.lower().startswith(LITTER_FOLDER_PREFIXES):
            return name
        return self._hidden_or_excluded(name, below)

    def kind_of_file(self, name: str, below: str) -> str | None:
        """Return how a file is counted that is skipped, None for one that is embedded.

        Args:
            name: its name.
            below: its path, relative to the folder that is walked.
        """
        if name in self.named:
            return None
        if name.lower() in LITTER_FILES:
            return name.strip()
        if name.startswith(APPLE_DOUBLE_PREFIX):
            return f"{APPLE_DOUBLE_PREFIX}*"
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - Path costs ten times as much per file
        if not self.other_kinds and (self._is_other_kind(suffix) or name.lower() in OTHER_NAMES):
            return suffix or NO_SUFFIX
        return self._hidden_or_excluded(name, below)

    def kind_of_path(self, path: str) -> str | None:
        """Return how a file is counted that is skipped for its own name or a folder above it, None for one that is not.

        Args:
            path: relative to the folder or archive that is walked, with ``/``.
        """
        *folders, name = path.split("/")
        for depth, folder in enumerate(folders, 1):
            if kind := self.kind_of_folder(folder, "/".join(folders[:depth])):
                return kind
        return self.kind_of_file(name, path)

    def _is_other_kind(self, suffix: str) -> bool:
        """Return whether files with this suffix are not of the modality."""
        if self.modality is Modality.IMAGE:
            return suffix in OTHER_KINDS and suffix not in self.parts.suffixes
        return suffix not in OWN_KINDS[self.modality]

    def _hidden_or_excluded(self, name: str, below: str) -> str | None:
        for pattern in self.exclude:
            wanted = pattern.rstrip("/")
            if fnmatch.fnmatchcase(below if "/" in wanted else name, wanted.removeprefix("/")):
                return pattern
        is_hidden = name.startswith(".") and name not in (".", "..")  # tar writes names that begin with ./
        return HIDDEN if is_hidden and not self.hidden else None


def skipped_summary(kinds: Mapping[str, int]) -> str:
    """Return what was skipped for a person: ``12 skipped (9 .txt, 2 @eaDir, 1 hidden)``."""
    ordered = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    named = [f"{count:,} {kind}" for kind, count in ordered[:_MAX_NAMED_KINDS]]
    rest = sum(count for _, count in ordered[_MAX_NAMED_KINDS:])
    return f"{sum(kinds.values()):,} skipped ({', '.join([*named, *([f'{rest:,} others'] if rest else [])])})"
