import { withLorax } from 'lorax-js/next';

export default withLorax({ output: 'standalone' });
