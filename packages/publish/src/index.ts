export { publishArchive, type ArchiveFacts } from './publish-archive.ts';
export {
  publishStreaming,
  type PublishContext,
  type PublishResult,
  type StreamingImageFacts,
} from './publish-streaming.ts';
