export { type FollowLogOptions, type LogItem } from './build-log.ts';
export {
  createRemoteBuilder,
  type RemoteBuilder,
  type RemoteBuilderOptions,
  type RemoteBuildEvent,
  type RemoteBuildRequest,
  type RemoteBuildResult,
  type RemoteCallOptions,
} from './builder.ts';
export { memoryContext, type RemoteContext } from './remote-context.ts';
