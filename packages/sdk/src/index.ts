export {
  formatPlan,
  DetachKeys,
  type BottleInfo,
  type BottlePlan,
  type CollectResult,
  type RemoteExec,
} from '@decant/bottle';
export { STATUS_FD, type DetachedBottle, type DetachRequest, type SupervisorStatus } from './bottle-detach.ts';
export type { ListedBottle } from './bottle-list.ts';
export type { BottleLogsRequest, BottleOutput } from './bottle-logs.ts';
export type { BottleRequest, PlannedBottle } from './bottle-plan.ts';
export type { RunBottleRequest, RunBottleResult } from './bottle-run.ts';
export type { SnapshotBottleRequest } from './bottle-snapshot.ts';
export type { AttachBottleRequest, Bottles, CopyBottleRequest, ExecBottleRequest } from './bottles.ts';
export { buildSettings, type BuildSettings } from './build-place.ts';
export { createDecant, type Decant } from './decant.ts';
export { listContext, type ContextListing } from './context-list.ts';
export { diagnose, type Diagnosis } from './doctor.ts';
export type { EngineRequest } from './build-local.ts';
export type { CreateImageRequest } from './image-create.ts';
export type { DeriveImageRequest } from './image-derive.ts';
export type { DiffEntry, DiffImagesRequest, ImageChange, ImageDiff } from './image-diff.ts';
export type { ExportRequest } from './image-export.ts';
export type { FilesystemRequest, ImageLimits } from './filesystem-request.ts';
export type { ImportImageRequest } from './image-import.ts';
export type { RunImageRequest, RunImageResult } from './image-run.ts';
export type { ServeImageRequest, ServedImage } from './image-serve.ts';
export { checkLogin, loadLogin, removeLogin, saveLogin, type Login } from './login.ts';
export type { PullImageRequest, PullImageResult, PushImageRequest, PushImageResult } from './image-transfer.ts';
export type { VerifyResult } from './image-verify.ts';
export { createNodeFetch, type NodeFetch } from '@decant/transport/node';
export { decantPaths, type DecantPaths } from './paths.ts';
export { readRegistryLogins } from './registry-logins.ts';
export type { ImageResult, RunStats } from './results.ts';
export type { DecantOptions } from './session.ts';
export type { CreatedSnapshot, CreateSnapshotRequest, ListSnapshotsRequest, SnapshotPage } from './snapshot.ts';
