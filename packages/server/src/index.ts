export { createApp, type AppOptions } from './app.ts';
export { parseBuilderLimits } from './builder/limit-settings.ts';
export { parseRegistryLimits, type RegistryOptions } from './registry/registry-settings.ts';
export { listen, type ListeningServer, type ListenOptions } from './listen.ts';
export { openEmbeddedServer, openServer, type EmbeddedServer, type OpenOptions, type OpenServer } from './open.ts';
