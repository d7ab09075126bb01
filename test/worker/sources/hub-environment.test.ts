// What the environment says of the hub, by the names and rules of Python's huggingface_hub.
import { mkdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { hubSettings, hubToken, ownCache } from '../../../worker/sources/hub-environment.js';
import { temporaryDirectory } from './fixture.js';

const home = homedir();

describe('the hub', () => {
  it.each([
    [{}, `${home}/.cache/huggingface/hub`],
    [{ XDG_CACHE_HOME: '/x' }, '/x/huggingface/hub'],
    [{ XDG_CACHE_HOME: '/x', HF_HOME: '/h' }, '/h/hub'],
    [{ HF_HOME: '~/h' }, `${home}/h/hub`],
    [{ HF_HOME: '/h', HF_HUB_CACHE: '/c' }, '/c'],
    [{ HUGGINGFACE_HUB_CACHE: '/old' }, '/old'],
    [{ HUGGINGFACE_HUB_CACHE: '/old', HF_HUB_CACHE: '/c' }, '/c'],
  ])('with %j is cached in %s', (env, cache) => {
    expect(hubSettings({}, env).cache).toBe(cache);
    expect(hubSettings({ cacheDirectory: '/mine' }, env).cache).toBe('/mine');
  });

  it('is where HF_ENDPOINT says, unless an option does', () => {
    expect(hubSettings({}, {}).endpoint).toBe('https://huggingface.co');
    const env = { HF_ENDPOINT: 'https://mirror.example/' };
    expect(hubSettings({}, env).endpoint).toBe('https://mirror.example');
    expect(hubSettings({ endpoint: 'http://x/hf' }, env).endpoint).toBe('http://x/hf');
  });

  it.each([
    [{}, false],
    [{ HF_HUB_OFFLINE: '1' }, true],
    [{ HF_HUB_OFFLINE: 'yes' }, true],
    [{ HF_HUB_OFFLINE: '0' }, false],
    [{ TRANSFORMERS_OFFLINE: 'True' }, true],
  ])('with %j is offline: %s', (env, offline) => {
    expect(hubSettings({}, env).offline).toBe(offline);
    expect(hubSettings({ offline: !offline }, env).offline).toBe(!offline);
  });

  it('gets HF_TOKEN, else what a login has left', async () => {
    const directory = temporaryDirectory();
    expect(await hubToken({ HF_HOME: directory })).toBeUndefined();
    writeFileSync(path.join(directory, 'token'), 'hf_file\n');
    expect(await hubToken({ HF_HOME: directory })).toBe('hf_file');
    expect(await hubToken({ HF_HOME: directory, HF_TOKEN: 'hf_env ' })).toBe('hf_env');
    mkdirSync(path.join(directory, 'other'));
    writeFileSync(path.join(directory, 'other', 'token'), 'hf_path');
    const env = { HF_HOME: directory, HF_TOKEN_PATH: path.join(directory, 'other', 'token') };
    expect(await hubToken(env)).toBe('hf_path');
  });
});

describe('our own cache', () => {
  it('is where caches are', () => {
    expect(ownCache({ XDG_CACHE_HOME: '/x' })).toBe('/x/lorax-js');
    expect(ownCache({ XDG_CACHE_HOME: 'relative' })).toBe(`${home}/.cache/lorax-js`);
    expect(ownCache({})).toBe(`${home}/.cache/lorax-js`);
  });
});
