export type {
  Backend,
  BackendReport,
  BottleImage,
  BottleLimits,
  CopyLimits,
  Exec,
  ExecExit,
  ExecRequest,
  Machine,
  MachineRequest,
  Mount,
  PreparedMachine,
  ResourceClaim,
  ResourceStack,
} from './backends/backend.ts';
export type { Bottle, BottleEnd, BottlePaths, BottleStats, EndReason, RunAgentOptions } from './bottle/bottle.ts';
export type { BottleEvent, ImageRequest, OpenBottleDeps, ResolvedImage } from './bottle/deps.ts';
export type { EgressPolicy, EgressRequest, Pins, Route, RouteMatch, Transport, Verdict } from './net/policy.ts';
export type {
  AgentPlan,
  BottleArtifact,
  BottleCertificate,
  BottleEndpoints,
  BottlePlan,
  BottleSpec,
  EgressPlan,
  PromptMode,
} from './plan/plan.ts';
export { isSlug, slugBase } from './plan/slug.ts';
export type { FaultHook, FaultPoint } from './stack/fault-points.ts';
export {
  collectBottles,
  listBottles,
  type BottleListing,
  type CollectOptions,
  type CollectResult,
} from './stack/gc.ts';
export type { LedgerHeader } from './stack/ledger.ts';
export { openStack, type BottleStack, type StackOptions } from './stack/stack.ts';
