/**
 * Requests for the objects of an S3 bucket, signed (aws4fetch); unsigned where there are no
 * credentials, for buckets that are open to all.
 *
 * What the source does not say the environment does, by the names AWS's tools read. Called by
 * source-fetcher.ts.
 */
import { AwsV4Signer } from 'aws4fetch';
import type { WireSource } from '../protocol.js';
import type { HttpRequest } from './http-response.js';

export type WireS3Source = Extract<WireSource, { kind: 's3' }>;

type Environment = Readonly<Record<string, string | undefined>>;

export async function s3Request(
  source: WireS3Source,
  file: string,
  env: Environment = process.env,
): Promise<HttpRequest> {
  const region = source.region ?? env.AWS_REGION ?? env.AWS_DEFAULT_REGION ?? 'us-east-1';
  const url = objectUrl(source, file, region, env);
  const credentials = source.credentials ?? credentialsIn(env);
  if (credentials === undefined) return { url, headers: {} };
  const { headers } = await new AwsV4Signer({ url, ...credentials, service: 's3', region }).sign();
  // fetch() sets it itself.
  headers.delete('host');
  return { url, headers: Object.fromEntries(headers) };
}

function objectUrl(
  { bucket, prefix, endpoint }: WireS3Source,
  file: string,
  region: string,
  env: Environment,
): string {
  const key = [...prefix.split('/'), file]
    .filter((part) => part !== '')
    .map(encodeURIComponent)
    .join('/');
  const given = endpoint ?? env.AWS_ENDPOINT_URL_S3 ?? env.AWS_ENDPOINT_URL;
  if (given) return `${given.replace(/\/+$/, '')}/${bucket}/${key}`;
  // A certificate for *.s3... covers no name with a dot of its own.
  if (bucket.includes('.')) return `https://s3.${region}.amazonaws.com/${bucket}/${key}`;
  return `https://${bucket}.s3.${region}.amazonaws.com/${key}`;
}

function credentialsIn(env: Environment): WireS3Source['credentials'] {
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN } = env;
  if (!AWS_ACCESS_KEY_ID || !AWS_SECRET_ACCESS_KEY) return undefined;
  return {
    accessKeyId: AWS_ACCESS_KEY_ID,
    secretAccessKey: AWS_SECRET_ACCESS_KEY,
    ...(AWS_SESSION_TOKEN ? { sessionToken: AWS_SESSION_TOKEN } : {}),
  };
}
