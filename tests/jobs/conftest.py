from campaigns import local_pool, tiny_folder, write_campaign

__all__ = ["local_pool", "tiny_folder", "write_campaign"]
