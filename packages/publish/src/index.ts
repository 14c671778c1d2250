export { publishArchive, type ArchiveFacts } from './publish-archive.ts';
export { publishImage, type PublishFacts, type RootTree } from './publish-image.ts';
export {
  publishStreaming,
  type PublishContext,
  type PublishResult,
  type StreamingImageFacts,
} from './publish-streaming.ts';
