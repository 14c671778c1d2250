export { checkErofs, type CheckErofsOptions, type ErofsCheck } from './check-erofs.ts';
export { checkExt4 } from './check-ext4.ts';
export { detectFilesystem, type Filesystem } from './detect-filesystem.ts';
export { diffTrees, type ChangedFact, type DiffTreesOptions, type TreeChange } from './diff-trees.ts';
export type { ImageRange } from './erofs-inode.ts';
export { planErofs, type ContentHasher, type ErofsPlan, type PlanErofsOptions } from './erofs-plan.ts';
export {
  flattenImage,
  flattenOnto,
  flattenOverlay,
  flattenTar,
  type FlattenedTree,
  type FlattenOptions,
  type LayerArchive,
} from './flatten.ts';
export { DEFAULT_FLATTEN_LIMITS, type FlattenLimits } from './flatten-limits.ts';
export { createScratch, type Scratch } from './scratch.ts';
export {
  readErofs,
  type ErofsImage,
  type ErofsLimits,
  type ImageDirectory,
  type ImageFile,
  type ImageNode,
  type ReadErofsOptions,
} from './erofs-read.ts';
export { checkExt4Options, type Ext4Options } from './ext4-options.ts';
export { readExt4, type Ext4Image, type ReadExt4Options } from './ext4-read.ts';
export { writeExt4, type Ext4Written, type WriteExt4Options } from './ext4-write.ts';
export { runToolDirectly, type RunTool, type RunToolOptions, type ToolResult } from './run-tool.ts';
export {
  sortedEntries,
  type BlobReader,
  type ByteString,
  type DeviceNode,
  type DirectoryNode,
  type Extent,
  type FileNode,
  type Metadata,
  type SpecialNode,
  type SymlinkNode,
  type TreeNode,
  type Xattr,
} from './tree.ts';
export { nodeAt, readNode, realComponents, withNode } from './tree-edit.ts';
export { byteStringOf } from './byte-string.ts';
