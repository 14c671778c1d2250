export { planErofs, type ContentHasher, type ErofsPlan, type PlanErofsOptions } from './erofs-plan.ts';
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
