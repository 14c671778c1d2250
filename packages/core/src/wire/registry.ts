import { z } from 'zod';

/** Answer of `POST /v1/container-registries/default/credentials`: what `docker login` takes. */
export const registryLoginSchema = z.object({
  username: z.string(),
  password: z.string(),
  /** `HOST[:PORT]/NAMESPACE`: images are pushed below it. */
  registry_url: z.string(),
  /** When they end, ISO 8601; null when they do not. */
  expired_at: z.iso.datetime().nullable(),
});
export type RegistryLogin = z.infer<typeof registryLoginSchema>;
