import { ADAPTERS } from '@/lib/lorax';
import { Chat } from './chat';

export default function Page() {
  return <Chat adapters={['base', ...ADAPTERS]} />;
}
