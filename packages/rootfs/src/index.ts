export { planErofs, type ContentHasher, type ErofsPlan, type PlanErofsOptions } from './erofs-plan.ts';
export { flattenImage, flattenTar, type FlattenedTree, type FlattenOptions } from './flatten.ts';
export { DEFAULT_FLATTEN_LIMITS, type FlattenLimits } from './flatten-limits.ts';
export { createScratch, type Scratch } from './scratch.ts';
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
