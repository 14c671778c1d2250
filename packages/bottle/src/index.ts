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
export type { EgressPolicy, EgressRequest, Pins, Route, RouteMatch, Transport, Verdict } from './net/policy.ts';
